"""Whether a text that a model wrote states only figures that were measured: numbers found in prose, in digits and in
words, and held against known figures. Pure; what texts are for is in `explanations.py`."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Literal

Kind = Literal["share", "count", "amount"]
Unit = Literal["bare", "percent", "count", "amount"]

# Significant digits that a rounded figure keeps: with 2, 10 % instead of 6 % of the slips in a number (a digit changed,
# dropped, swapped) read like another figure of the verdict by chance; and 4.9 points must not be called 5, the margin.
LEAST_DIGITS = 3
_DIGITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(("zero", *_DIGITS, *_TEENS))}
_WORDS |= {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
# What is a figure of its own, in words: nobody measured it, so nobody may state it. "First" and "second" are order.
_QUANTITIES = (
    r"half|halves|halv(?:ed|ing)|quarters?|twice|thrice|doubl(?:e|ed|es|ing)|trebl(?:e|ed|ing)|tripl(?:e|ed|es|ing)"
    r"|quadrupl(?:e|ed|ing)|dozens?|tens|hundreds|thousands|millions|billions|trillions?|(?:two|three|four|five|six"
    r"|seven|eight|nine|ten|hundred|many|several)-?fold|thirds?|(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teen|twentie|hundred|thousand)ths?"
    r"|(?:twent|thirt|fort|fift|sixt|sevent|eight|ninet)ies"
)
_BELOW_100 = (
    rf"(?:(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_DIGITS)})\b)?|(?:{'|'.join(reversed(_TEENS))}"
    rf"|zero|{'|'.join(_DIGITS)})\b)"
)
_BELOW_1000 = rf"(?:(?:{_BELOW_100}[ -])?hundred(?:(?: and |[ -]){_BELOW_100})?|{_BELOW_100})"
_IN_WORDS = (
    rf"(?:{_BELOW_1000}[ -])?(?:{'|'.join(_SCALES)})(?:(?: and |[ -]){_BELOW_1000}(?![ -](?:{'|'.join(_SCALES)})))?"
    rf"|{_BELOW_1000}"
)
_FOUND = re.compile(
    r"(?P<digits>(?:\d+|(?<!\w)\.\d+)(?:[.,'_:/⁄^]\d+| \d{3}(?!\d))*)"
    rf"|\b(?P<quantity>{_QUANTITIES})\b"
    rf"|\b(?P<words>{_IN_WORDS})\b",
    re.IGNORECASE,
)
_FORM = re.compile(r"(?:(?:0|[1-9]\d*)|[1-9]\d{0,2}(?:(?P<by>[,'_ ])\d{3})(?:(?P=by)\d{3})*)?(?:\.(?P<decimals>\d+))?")
_BEFORE = re.compile(r"[\w$€£¥#/^*]$|\d[.,]$")  # INT8, v2, $5, #3, 2*3: no figure of these is known
_PERCENT = re.compile(r"[ -]?(?:%|percent\b|per cent\b|percentage[ -]points?\b|points?\b|pts?\b|pp\b)", re.IGNORECASE)
_COUNTED = re.compile(r" (?:scores?|interactions?|sessions?|conversations?|samples?|answers?|examples?|requests?)\b")
_AMOUNT = re.compile(r" ?(?:ms|milliseconds?|tokens?)\b", re.IGNORECASE)
_OTHER_UNIT = re.compile(
    r"\w|\^|[ -]?(?:fold|times|x|k|bn|hundred|thousand|million|billion|trillion|dozen|basis|bps|per mille|permille)\b"
    r"| ?[×*/^‰$€£¥]|[ -]and[ -]a[ -](?:half|quarter)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Figure:
    """One measured figure that a text may state. `kind`: a share lies in [0, 1] and is also told in points or percent;
    a count is whole; an amount is anything else, such as milliseconds."""

    name: str
    value: float
    kind: Kind

    @property
    def shown(self) -> str:
        """The figure as it is given to a writer, in digits that `states_only_known_figures` takes."""
        exact = abs(Decimal(repr(self.value)))
        if self.kind == "count":
            return f"{exact:f}"
        exact = exact * 100 if self.kind == "share" else exact
        for decimals in range(1, 12):
            rounded = round(exact, decimals)
            if rounded == exact:
                break
            if _significant(f"{rounded:f}") >= LEAST_DIGITS:
                return f"{rounded:f}"
        return f"{exact.normalize():f}"


def states_only_known_figures(text: str, figures: Sequence[Figure], names: Collection[str] = ()) -> list[str]:
    """The numbers in `text` that are none of `figures`, as they stand there; empty where every number is known.

    Numbers are digits in any script, with separators (1,204 or 1 204 or 1'204) and a decimal point, and English words.
    Known is: a count to the digit; a share as it is (at least two decimals) or times 100, and only so before "%",
    "percent" or "points"; an amount. Shares and amounts may be rounded to the decimals written as long as
    LEAST_DIGITS significant digits remain. Signs do not count. Numbers in other units, ratios, fractions, dates,
    multiples ("twice", "1.2k") and digits inside words are never known. `names`, such as those of models, may stand
    in the text as they are. A known figure in the place of another one is not noticed.
    """
    plain = without_names(_folded(text), names)
    return [found for found, known in _numbers(plain, figures) if not known]


def _folded(text: str) -> str:
    """The text as a reader sees it: compatibility forms folded, nothing invisible, digits of any script as ASCII."""
    shown = "".join(each for each in unicodedata.normalize("NFKC", text) if unicodedata.category(each) != "Cf")
    shown = "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in shown)
    return re.sub(r"\s+", " ", shown).replace("’", "'").replace("‑", "-").replace("‐", "-")


def without_names(text: str, names: Collection[str]) -> str:
    """The text with a replacement character for each of its names; what is a figure itself, or holds a unit, stays."""
    named = [each for each in map(_folded, names) if re.search(r"[a-z]", each, re.IGNORECASE)]
    named = [each for each in named if not re.search(r"[\s%]", each) and not _FOUND.fullmatch(each)]
    for name in sorted(named, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w]|[.-]\w)", "\N{REPLACEMENT CHARACTER}", text)
    return text


def _numbers(text: str, figures: Sequence[Figure]) -> Iterator[tuple[str, bool]]:
    """Every number in the text, in order, and whether it is known."""
    found = [(each.start(), each[0], _is_known(text, each, figures)) for each in _FOUND.finditer(text)]
    found += [(at, each, False) for at, each in enumerate(text) if _is_numeral(each)]
    for _, written, known in sorted(found):
        yield written, known


def _is_numeral(each: str) -> bool:
    """Whether the character is a number that is no digit: of Chinese, of Roman numerals, a fraction."""
    return not each.isascii() and unicodedata.numeric(each, None) is not None


def _is_known(text: str, found: re.Match[str], figures: Sequence[Figure]) -> bool:
    before, after = text[max(found.start() - 2, 0) : found.start()], text[found.end() : found.end() + 24]
    if found["quantity"] or _BEFORE.search(before):
        return False
    unit = _unit(after)
    if unit is None:
        return False
    if found["words"]:
        return _is_figure(Decimal(_value(found["words"])), 0, unit, figures)
    parts = [found["digits"]]
    if not _stated(parts[0], unit, figures):
        parts = parts[0].split(" ")  # two numbers with a blank between, and no thousands
    return all(_stated(each, unit if each is parts[-1] else "bare", figures) for each in parts)


def _unit(after: str) -> Unit | None:
    """What the number counts; None where it is nothing that is measured here."""
    if _PERCENT.match(after):
        return "percent"
    if _AMOUNT.match(after):
        return "amount"
    if _OTHER_UNIT.match(after):
        return None
    return "count" if _COUNTED.match(after) else "bare"


def _stated(digits: str, unit: Unit, figures: Sequence[Figure]) -> bool:
    form = _FORM.fullmatch(digits)
    if not form:
        return False
    written = Decimal(re.sub(r"[,'_ ]", "", digits))
    return _is_figure(written, len(form["decimals"] or ""), unit, figures)


def _value(words: str) -> int:
    """The value of a number in words."""
    total, current = 0, 0
    for word in re.findall(r"[a-z]+", words.lower()):
        if word == "and":
            continue
        if word in _WORDS:
            current += _WORDS[word]
        elif word == "hundred":
            current = max(current, 1) * 100
        else:
            total, current = total + max(current, 1) * _SCALES[word], 0
    return total + current


def _is_figure(written: Decimal, decimals: int, unit: Unit, figures: Sequence[Figure]) -> bool:
    return any(_is_rounded(written, decimals, unit, each) for each in figures)


def _is_rounded(written: Decimal, decimals: int, unit: Unit, figure: Figure) -> bool:
    value = abs(Decimal(repr(figure.value)))
    if figure.kind == "count":
        return unit in ("bare", "count") and written == value
    if figure.kind == "amount":
        return unit in ("bare", "amount") and _rounds(value, written, decimals)
    if unit in ("bare", "percent") and _rounds(value * 100, written, decimals):
        return True
    return unit == "bare" and (written == value or (decimals >= 2 and _rounds(value, written, decimals)))


def _rounds(value: Decimal, written: Decimal, decimals: int) -> bool:
    """Whether that is how the value reads with so many decimals: half-way cases as schools or as banks round them."""
    if written == value:
        return True
    step = Decimal(1).scaleb(-decimals)
    near = written in (value.quantize(step, ROUND_HALF_UP), value.quantize(step, ROUND_HALF_EVEN))
    return near and _significant(f"{written:f}") >= LEAST_DIGITS


def _significant(digits: str) -> int:
    return len(digits.replace(".", "").lstrip("0"))
