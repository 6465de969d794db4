"""Personal data and secrets out of texts: placeholders for values found by shape, checksum and context.

No model and no dictionary of names: what has neither shape nor context (names, addresses) stays unless the customer's
own patterns tell it. Rules of numbers and addresses are here, those of keys in `keys.py`.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from functools import lru_cache
from hashlib import sha256
from ipaddress import AddressValueError, IPv6Address
from types import MappingProxyType
from typing import NamedTuple

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.customer_patterns import checked, matches
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.keys import secret_spans
from optiinfra_pipelines.settings import Settings

RULES = "1"  # counts up with every change of what is found or how it is replaced; a test holds it to the behaviour
KINDS = ("KEY", "EMAIL", "IBAN", "CARD", "SSN", "IP", "PHONE")
MASK = "\uf8ff"  # stands for each character of a placeholder while values are looked for
_NO_PATTERNS: Mapping[str, str] = MappingProxyType({})


class Finding(NamedTuple):
    """A value in a text: where it stands, its kind and what makes it the same value in another spelling."""

    start: int
    end: int
    kind: str
    value: str


class Redactor:
    """Replaces values by [KIND_number]; the same value has the same placeholder within an interaction.

    `patterns`: a customer's own, name -> regular expression; matches read [NAME_1]. ValueError for a name or an
    expression that cannot be used (see `customer_patterns.py` for what may take too long).
    """

    kinds: tuple[str, ...] = KINDS
    rules = RULES

    def __init__(self, patterns: Mapping[str, str] = _NO_PATTERNS) -> None:
        self._patterns = checked(patterns, self.kinds)
        own = sha256(repr(sorted(patterns.items())).encode()).hexdigest()[:8]
        self.version = f"{self.rules}+{own}" if patterns else self.rules
        kinds = "|".join((*self.kinds, *self._patterns))
        self._placeholder = re.compile(rf"\[({kinds})_(\d{{1,9}})\]")

    def redact(self, texts: Texts) -> tuple[Texts, int]:
        """The texts of one interaction with every value replaced, and how many distinct values that were.

        What was redacted before stays as it is: texts are read again until nothing more is found, so that redacting
        the result changes nothing.
        """
        parts: list[str] = list(astuple(texts))
        last: dict[str, int] = {}
        for part in parts:
            for kind, number in self._placeholder.findall(part):
                last[kind] = max(last.get(kind, 0), int(number))
        names: dict[tuple[str, str], str] = {}
        for number, part in enumerate(parts):
            while found := self._find(part):
                for each in found:
                    if each[2:] not in names:
                        last[each.kind] = last.get(each.kind, 0) + 1
                        names[each[2:]] = f"[{each.kind}_{last[each.kind]}]"
                part = _replaced(part, [(each.start, each.end, names[each[2:]]) for each in found])
            parts[number] = part
        return Texts(*parts), len(names)

    def findings(self, text: str) -> Iterator[Finding]:
        """Every value in a text whose look-alikes are folded and whose placeholders are masked, best first."""
        for name, pattern in self._patterns.items():
            for start, end in matches(pattern, text):
                yield Finding(start, end, name, text[start:end])
        for start, end in secret_spans(text):
            yield Finding(start, end, "KEY", text[start:end])
        for rule in (*_RULES, *_NUMBER_RULES) if _LONG_NUMBER.search(text) else _RULES:
            yield from rule(text)

    def _find(self, text: str) -> list[Finding]:
        if not text:
            return []
        folded, places = _folded(text)
        folded = self._placeholder.sub(lambda match: MASK * len(match[0]), folded)
        taken: list[Finding] = []
        for finding in self.findings(folded):
            for each in _unmasked(finding, folded):
                if all(each.end <= other.start or other.end <= each.start for other in taken):
                    taken.append(each)
        if places is not None:
            taken = [each._replace(start=places[each.start], end=places[each.end - 1] + 1) for each in taken]
        return sorted(taken)


def _unmasked(finding: Finding, text: str) -> Iterable[Finding]:
    """The finding, or what of it is no placeholder."""
    if MASK not in text[finding.start : finding.end]:
        return [finding] if finding.start < finding.end else []
    parts = re.compile(f"[^{MASK}]+").finditer(text, finding.start, finding.end)
    return [Finding(*part.span(), finding.kind, part[0]) for part in parts]


def _replaced(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    pieces, at = [], 0
    for start, end, placeholder in changes:
        pieces += [text[at:start], placeholder]
        at = end
    return "".join([*pieces, text[at:]])


@lru_cache(maxsize=10_000)
def _plain(character: str) -> str:
    """What a character beyond ASCII looks like: nothing where it is invisible, itself where it has no look-alike."""
    category = unicodedata.category(character)
    if category in ("Cf", "Mn", "Me") or character == MASK:
        return ""
    if category == "Zs":
        return " "
    if category == "Pd" or character == "\N{MINUS SIGN}":
        return "-"
    digit = unicodedata.decimal(character, None)
    likeness = unicodedata.normalize("NFKC", character) if digit is None else str(digit)
    return likeness if len(likeness) == 1 and likeness.isascii() else character


def _folded(text: str) -> tuple[str, Sequence[int] | None]:
    """The text in plain characters and, where it became shorter, the place in `text` of each one left."""
    if text.isascii():
        return text, None
    changed = {ord(each): _plain(each) for each in set(text) if each > "\x7f" and _plain(each) != each}
    if not changed:
        return text, None
    places = None
    if "" in changed.values():
        places = [place for place, each in enumerate(text) if changed.get(ord(each)) != ""]
    return text.translate(changed), places


_AT = re.compile(r"@|%40| ?[\[({] ?(?:at|AT|@) ?[\])}] ?")
_AT_HINTS = ("@", "%40", "(at", "[at", "{at", "( at", "[ at", "{ at")
_LOCAL_BACKWARDS = re.compile(r"[\w.+%'-]{1,64}")
_DOT = r"(?:\.| ?[\[({] ?(?:dot|DOT) ?[\])}] ?)"
_DOMAIN = re.compile(rf"(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?{_DOT}){{1,8}}(?:xn--[A-Za-z0-9-]{{2,59}}|[^\W\d_]{{2,24}})")
_IMAGE_SCALE = re.compile(r"\dx\.")


def _emails(text: str) -> Iterator[Finding]:
    lowered = text.lower()
    if not any(hint in lowered for hint in _AT_HINTS):
        return
    for at in _AT.finditer(text):
        local = _LOCAL_BACKWARDS.match(text[max(at.start() - 64, 0) : at.start()][::-1])
        domain = _DOMAIN.match(text, at.end())
        if local and domain and not _IMAGE_SCALE.match(domain[0]):
            name = local[0][::-1].lstrip("'.%-")
            if name and (name, at[0]) != ("git", "@"):
                address = re.sub(_DOT, ".", f"{name}@{domain[0]}".lower())
                yield Finding(at.start() - len(name), domain.end(), "EMAIL", address)


IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"(..)(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20YE30",
    )
}
_IBAN = re.compile(r"\d(?<=[A-Za-z]{2}\d)(?<![A-Za-z0-9_][A-Za-z]{2}\d)\d(?:[ -]?[A-Za-z0-9]){11,29}")


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        found = text[start : match.end()]
        length = IBAN_LENGTHS.get(found[:2].upper(), 0)
        places = [place for place, each in enumerate(found) if each.isalnum()]
        if not length or len(places) < length:
            continue
        end = start + places[length - 1] + 1
        number = "".join(found[place] for place in places[:length]).upper()
        if (
            _STANDS_ALONE.match(text, end)
            and int("".join(str(int(each, 36)) for each in number[4:] + number[:4])) % 97 == 1
        ):
            yield Finding(start, end, "IBAN", number)


_STANDS_ALONE = re.compile(r"(?![A-Za-z0-9])")
_LONG_NUMBER = re.compile(r"\d[ ()./-]{0,3}\d[\d ()./-]{3,}\d")  # in every number that is looked for below
_GROUPED = re.compile(r"\d(?<![A-Za-z0-9_]\d)(?<!\d[.,]\d)\d*(?:[ .-]{1,3}\d+)*(?![A-Za-z0-9_])")
_BRANDS = (
    re.compile(  # first digits and lengths: Amex, Diners, Visa, Mastercard, Mir, JCB, RuPay, Discover, UnionPay...
        r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}"
        r"|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|220[0-4]\d{12,15}|35(?:2[89]|[3-8]\d)\d{12,15}"
        r"|(?:60|65|81|82|508)\d{13,14}|6(?:011|4[4-9]\d|5\d\d)\d{12,15}|62\d{14,17}|(?:50|5[6-8]|6[37])\d{11,17}"
    )
)
_ARTICLE = re.compile(
    r"(?i)(?:\b(?:ean|gtin|isbn|upc|imei|issn|doi)\b[-:# ]*(?:1[0-4]\b)?[-:# ]*(?:number|code|is)?[: ]*)$"
)


def luhn(digits: str) -> bool:
    """Whether the last of the digits is their check digit by Luhn."""
    doubled = (sum(divmod(2 * int(each), 10)) for each in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _cards(text: str) -> Iterator[Finding]:
    for match in _GROUPED.finditer(text):
        if match.end() - match.start() < 13 or _ARTICLE.search(text, max(match.start() - 24, 0), match.start()):
            continue
        groups = list(re.compile(r"\d+").finditer(text, *match.span()))
        first = 0
        while first < len(groups):
            digits, last = "", first
            glued = first > 0 and " " not in text[groups[first - 1].end() : groups[first].start()]
            while last < len(groups) and len(digits) < 19:
                digits, last = digits + groups[last][0], last + 1
                whole = (
                    not glued
                    and len(groups[first][0]) >= 4
                    and all(len(each[0]) >= 3 for each in groups[first : last - 1])
                )
                if len(digits) >= 13 and whole and _BRANDS.fullmatch(digits) and luhn(digits):
                    yield Finding(groups[first].start(), groups[last - 1].end(), "CARD", digits)
                    first = last - 1
                    break
            first += 1


_SSN = re.compile(r"\d(?<![A-Za-z0-9_.+/-]\d)(?<!\d[ ,]\d)\d\d([- ])\d\d\1\d{4}(?![A-Za-z0-9_-]|[ .,/]\d)")
_NO_SSN = re.compile(r"000|666|9|...[- ]00|.{6}[- ]0000")
_SSN_NAMED = re.compile(r"(?i)(?:\bssn|social security(?: number| no\.?)?)(?: is)?[:=# \"']{1,4}(\d{9})(?!\w)")


def _social_security_numbers(text: str) -> Iterator[Finding]:
    for match in _SSN.finditer(text):
        if not _NO_SSN.match(match[0]) and not _numbered(text, match.start()):
            yield Finding(*match.span(), "SSN", _digits(match[0]))
    lowered = text.lower()
    if "ssn" in lowered or "social security" in lowered:
        for match in _SSN_NAMED.finditer(text):
            yield Finding(*match.span(1), "SSN", match[1])


_V4 = re.compile(r"\d(?<![A-Za-z0-9_.-]\d)\d{0,2}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![A-Za-z0-9_]|\.\d|-\d)")
_VERSION = re.compile(
    r"(?i)(?:\b(?:v|ver|version|release|rel|build|rev|revision|firmware|driver|section|chapter|clause|sec|art|article"
    r"|paragraph|update|patch|upgrade[ds]? to|oid)\b[. :=]{0,3}|\w/|[<>~]=|[~^]|==|\s[<>] ?|§ ?)$"
)
_V6 = re.compile(r"[0-9A-Fa-f](?<![A-Za-z0-9_.][0-9A-Fa-f])(?<![0-9A-Fa-f]:[0-9A-Fa-f])[0-9A-Fa-f:]{2,44}(?![\w:])")
_V6_HINT = re.compile(r":(?::[0-9A-Fa-f]|[0-9A-Fa-f]{1,4}:)")


def _version_4(text: str) -> Iterator[Finding]:
    """Addresses of machines, private ones too; not 0.0.0.0, 127.* and 255.*, which are everybody's."""
    for match in _V4.finditer(text):
        octets = match[0].split(".")
        if any(int(each) > 255 or (len(each) > 1 and each[0] == "0") for each in octets):
            continue
        everybodys = match[0] == "0.0.0.0" or octets[0] in ("127", "255")
        if not everybodys and not _VERSION.search(text, max(match.start() - 24, 0), match.start()):
            yield Finding(*match.span(), "IP", match[0])


def _version_6(text: str) -> Iterator[Finding]:
    if _V6_HINT.search(text):
        for match in _V6.finditer(text):
            address = _v6(match[0])
            if address is not None:
                yield Finding(*match.span(), "IP", str(address))


def _v6(text: str) -> IPv6Address | None:
    """The address where it is one of a machine: others of the notation (a::b, 12:30:00) are mostly something else."""
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return None
    first = int(address) >> 112
    return address if 0x2000 <= first < 0x4000 or 0xFC00 <= first < 0xFEC0 or first >= 0xFF00 else None


_COUNTRY = re.compile(
    r"1|7|2(?:0|7|[1-689]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)|8(?:[1246]|[05789]\d)"
    r"|9(?:[0-58]|[679]\d)"
)
_BEHIND, _AHEAD = r"(?<![A-Za-z0-9_/+-]{0})(?<!\d[ .,:]{0})", r"(?![A-Za-z0-9_%]|[.,:]\d|[-/]\d)"


def _starting(first: str, rest: str) -> re.Pattern[str]:
    """What stands alone: no number or word runs into it. The first character comes first, which makes searches fast."""
    return re.compile(first + _BEHIND.format(first) + rest + r"(?: ?(?:x|ext\.?) ?\d{1,5})?" + _AHEAD)


_AMERICAN_ABROAD = re.compile(r"[+](?<![\w)+][+])\(?1[ .)-]{0,3}\(?[2-9]\d\d\)?[ .-]{0,3}\d{3}[ .-]{0,3}\d{4}(?!\d)")
_ABROAD = re.compile(r"[+](?<![\w)+][+])\(?([2-9]\d{0,3}(?:[ .()/-]{0,3}\d){6,13})(?![A-Za-z0-9_])")
_DIALLED = _starting(r"0", r"0([1-9]\d{0,2}(?:[ ./()-]{1,3}\d{1,9}){1,6})")
_NATIONAL = (
    _starting(r"\d", r"(?<=1)[ .-]{1,2}(?:\(\d{3}\)[ .-]{0,2}|\d{3}[ .-])\d{3}[ .-]\d{4}"),
    _starting(r"\d", r"\d\d([.-])\d{3}\1\d{4}"),
    _starting(r"[2-9]", r"(?!00 )[0-9]\d[ -][2-9]\d\d[ .-]\d{4}"),
    _starting(r"\(", r"(?!19|20\d\d)0?\d{2,5}\)[ /.-]{0,3}\d{3,8}(?:[ .-]\d{2,4}){0,3}"),
    _starting(r"0", r"[1-9]([ .-]?)\d\d(?:\1\d\d){3}"),
    _starting(r"0", r"[1-9][ /-]{1,3}(?!(?:19|20)\d\d[-/])\d{3,9}(?:[ -]\d{2,4}){0,3}"),
    _starting(r"0", r"[1-9]\d{1,4}[ ./-]{1,3}\d{2,8}(?:[ .-]\d{1,4}){0,4}"),
    _starting(r"0", r"[1-9]\d{0,2}-\d{2,3}(?: \d\d){2}"),
    _starting(r"[6-9]", r"\d\d([ .-])\d\d(?:\1\d\d){2}"),
    _starting(r"9", r"\d \d{3} \d\d \d\d"),
    _starting(r"1", r"[3-9]\d([ -])\d{4}\1\d{4}"),
)
_CALLED = re.compile(
    r"(?i)(?:(?:phone|mobile|cell|fax|whatsapp|signal|handy|rufnummer|telefon\w*|mobil|phone|\btel|portable|movil|móvil"
    r"|tel[eé]fono|t[eé]l[eé]phone|celular|cellulare|numero di telefono|电话|手机|電話|携帯)s?"
    r"|\b(?:call|text|ring|dial|reach|contact|message) (?:me|us|him|her|them|it|back)?)"
    r"[ .:=#\"'-]{0,4}(?:(?:number|no|nr|nummer|is|ist|est|es|at|on|under|unter|au|al|me|us)[ .:=#\"'-]{1,4}){0,3}"
    r"[+(]{0,2}$"
)
_LOOSE = re.compile(r"\d(?<![A-Za-z0-9_.,]\d)[\d ()./-]{5,17}\d(?![A-Za-z0-9_]|[.,:]\d)")
_DATE = re.compile(r"\(?(?:\d{1,2}([./ -])\d{1,2}\1(?:19|20)?\d\d|(?:19|20)\d\d([./ -])?\d\d\2\d\d)(?![ ./-]?\d)")
_NUMBERED = re.compile(
    r"(?i)\b(?:sku|parts?|model|items?|order|bestell\w*|invoice|rechnung\w*|ref|reference|serial|case|ticket|isbn|issn|product"
    r"|article|artikel\w*|catalog(?:ue)?|version|build|lot|batch|tracking|shipment|patent|account|policy|id|doi|code|pmid)"
    r"\b[ .:#-]{0,3}(?:(?:number|no|nr|id|code|is|was|key|key|#)\b[ .:#-]{0,3}){0,2}$"
)


def _numbered(text: str, start: int) -> bool:
    """Whether the words before say that the number is an order's, a part's, a case's..."""
    return bool(_NUMBERED.search(text, max(start - 32, 0), start))


def _phones(text: str) -> Iterator[Finding]:
    for match in _AMERICAN_ABROAD.finditer(text):
        yield _phone(match)
    for match in (*_ABROAD.finditer(text), *_DIALLED.finditer(text)):
        digits = _digits(match[1])
        fewest = 9 if digits == match[1] else 8
        dialled = match[0][0] == "0" and _numbered(text, match.start())
        if fewest <= len(digits) <= 15 and _COUNTRY.match(digits) and not dialled:
            yield _phone(match)
    for pattern in _NATIONAL:
        for match in pattern.finditer(text):
            enough = 8 if match[0].lstrip("(").startswith("0") else 9
            alike = match[0].isdigit() or _DATE.match(match[0]) or _numbered(text, match.start())
            if len(_digits(match[0])) >= enough and not alike:
                yield _phone(match)
    for match in _LOOSE.finditer(text):
        called = _CALLED.search(text, max(match.start() - 48, 0), match.start())
        if called and 7 <= len(_digits(match[0])) <= 15 and not _DATE.match(match[0]):
            yield _phone(match)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


def _phone(match: re.Match[str]) -> Finding:
    return Finding(*match.span(), "PHONE", _digits(match[0]).removeprefix("00"))


_Rule = Callable[[str], Iterable[Finding]]
_RULES: Sequence[_Rule] = (_emails, _ibans, _version_6)
_NUMBER_RULES: Sequence[_Rule] = (_cards, _social_security_numbers, _version_4, _phones)


def open_redactor(settings: Settings, patterns: Mapping[str, str] = MappingProxyType({})) -> Redactor:
    """The redactor that the settings name, with a customer's patterns; CollectionError (not_configured) where
    Presidio is not installed."""
    if settings.redactor == "builtin":
        return Redactor(patterns)
    from optiinfra_pipelines.llm.presidio import presidio_redactor

    try:
        return presidio_redactor(patterns)
    except ImportError as error:
        raise CollectionError("not_configured", str(error)) from None
