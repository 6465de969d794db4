"""The guard over figures: it lets every measured figure pass in every form that is allowed, and no other number."""

import random
import re
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import settings as suite
from hypothesis import strategies as st

from optiinfra_pipelines.gate.figures import Figure, states_only_known_figures

FIGURES = (
    Figure("mean before", 0.8712, "share"),
    Figure("mean after", 0.7504, "share"),
    Figure("worse by", 0.1208, "share"),
    Figure("at least", 0.0893, "share"),
    Figure("margin", 0.05, "share"),
    Figure("scores", 412, "count"),
    Figure("scores before", 2_000, "count"),
    Figure("latency", 1234.567, "amount"),
    Figure("example", 0.25, "share"),
)
_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_SENTENCES = (
    "Quality fell from {} to {}, and {} of it is sure.",
    "With {} behind it the mean is {} instead of {}.",
    "Example A ({}) cites a source that is not there; example B has {} and {}.",
    "the drop—{}—is beyond the margin ({}), n = {}.",
    "It was {}, now {}: worse by {}!",
)


@pytest.mark.parametrize(
    "text",
    [
        "Quality fell from 87.1 to 75.0 points (12.1 points, margin 5 points) over 412 scores.",
        "A 12.1-point drop: 87.12 % before, 75.0 percent after, at least 8.930 percentage points, 8.93 pp.",
        "The mean is 0.750 instead of 0.871 (-0.121, −0.1208), .750 in short.",
        "2,000 baseline scores, 2 000 or 2'000 of them, 2\u202f000, 2_000, 2000.",
        "Latency is 1,234.6 ms, 1234.57ms or 1235 milliseconds.",
        "Five points are the margin, five is little; twenty-five points on example A; four hundred and twelve scores.",
        "８７.１ points and ٢٥ percent",
        "First the facts, then, second, nobody said anyone was tending to be often alone.",
        "llama-3.1-8b-q4 replaced llama-3.1-8b: see llama-3.1-8b-q4.",
    ],
)
def test_measured_figures_pass_in_every_form_that_is_allowed(text: str):
    assert states_only_known_figures(text, FIGURES, ["llama-3.1-8b", "llama-3.1-8b-q4"]) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It fell by 13 points.", ["13"]),
        ("87.2 % before", ["87.2"]),
        ("0.87 before, 75 % after, a 12-point drop", ["0.87", "75", "12"]),  # too little is left
        ("worse by 9 or 8.9 points at least, by twelve points", ["9", "8.9", "twelve"]),
        ("412 % of them, 75 scores, 0.12 points", ["412", "75", "0.12"]),
        (
            "twice as bad, half of it, a third, two dozen, tenfold",
            ["twice", "half", "third", "two", "dozen", "tenfold"],
        ),
        (
            "sixteen answers, thirty-one, three hundred, in the eighties",
            ["sixteen", "thirty-one", "three hundred", "eighties"],
        ),
        (
            "1.2k, 12x, 12-fold, 5 times, 75 million, 5 thousand",
            ["1.2", "12", "12", "5", "75", "million", "5", "thousand"],
        ),
        ("3/4, 12:30, 5:1, 2^5, 12e3", ["3/4", "12:30", "5:1", "2^5", "12", "3"]),
        ("on 2026-11-20", ["2026", "11", "20"]),
        ("$5, #5, v5, INT8, 4-bit, 5th", ["5", "5", "5", "8", "4", "5"]),
        ("8712, 87,12, 2,0,0,0, 20,00, 0412, 1.2.3", ["8712", "87,12", "2,0,0,0", "20,00", "0412", "1.2.3"]),
        ("½ of it, 五 points, ٨ points", ["1⁄2", "五", "8"]),
        ("8\u200b8 points", ["88"]),
        ("5 ‰, 12 basis points, 87 bps", ["5", "12", "87"]),
        ("llama-3.1-70b, llama-3.1-8bx", ["3.1", "70", "3.1", "8"]),
    ],
)
def test_any_other_number_is_found(text: str, found: list[str]):
    assert states_only_known_figures(text, FIGURES, ["llama-3.1-8b"]) == found


def test_a_name_that_is_a_number_lets_no_number_pass():
    assert states_only_known_figures("13 points, sixteen scores", FIGURES, ["13", "sixteen", "13%"]) == [
        "13",
        "sixteen",
    ]


@given(value=st.floats(0, 1, allow_nan=False), kind=st.sampled_from(["share", "amount"]))
def test_a_figure_as_it_is_given_to_the_writer_always_passes(value: float, kind: str):
    figure = Figure("any", round(value, 6) if kind == "share" else round(value * 1e5, 6), kind)  # type: ignore[arg-type]
    unit = " points" if kind == "share" else " ms"
    assert states_only_known_figures(f"It is {figure.shown}{unit}.", [figure]) == []


def _forms(figure: Figure) -> list[str]:
    """Every form of a figure that the rules allow, by other means than the guard's."""
    value = Decimal(repr(figure.value))
    if figure.kind == "count":
        return [f"{value}", f"{value:,}", f"{value:,}".replace(",", " "), f"{value} scores"]
    scales = [(Decimal(1), range(4), ("", " ms"))]
    if figure.kind == "share":
        scales = [(Decimal(1), range(2, 7), ("",)), (Decimal(100), range(5), ("", " %", "%", " points", "-point"))]
    found = []
    for scale, places, units in scales:
        for decimals in places:
            for rounding in (ROUND_HALF_EVEN, ROUND_HALF_UP):
                rounded = (value * scale).quantize(Decimal(1).scaleb(-decimals), rounding)
                if rounded == value * scale or len(f"{rounded}".replace(".", "").lstrip("0")) >= 3:
                    found += [f"{rounded:,}{unit}" for unit in units]
    if figure.kind == "share" and value * 100 in range(21):
        found += [f"{_WORDS[int(value * 100)]} points"]
    return found


def _drawn(random: random.Random) -> list[Figure]:
    """Figures as a verdict on one to three metrics and five examples has them."""
    found = []
    for _ in range(random.randint(1, 3)):
        before, drop = random.uniform(0.4, 1), random.uniform(0.05, 0.3)
        shares = (before, before - drop, drop, drop * random.random(), drop * (1 + random.random()), 0.05)
        found += [Figure("", round(share, 6), "share") for share in shares]
        found += [Figure("", random.randint(30, 5_000), "count") for _ in range(4)]
    found += [Figure("", random.randint(0, 16) / 16, "share") for _ in range(5)]
    return [*found, Figure("", round(random.uniform(50, 9_000), 3), "amount")]


def _said(random: random.Random, figures: list[Figure]) -> tuple[str, list[str]]:
    """A text that states figures, with {} where each stands, and their forms."""
    text = " ".join(random.sample(_SENTENCES, random.randint(1, 3)))
    return text, [random.choice(_forms(random.choice(figures))) for _ in range(text.count("{}"))]


def _corruptions(form: str, random: random.Random) -> list[str]:
    """A form with one slip in its number: a digit changed, dropped, doubled, swapped, the point moved, or in words."""
    digits = [at for at, each in enumerate(form) if each.isdigit()]
    if not digits:
        return [f"{random.choice(_WORDS)} points"]
    at = random.choice(digits)
    changed = form[:at] + random.choice("0123456789".replace(form[at], "")) + form[at + 1 :]
    doubled = form[:at] + form[at] + form[at:]
    dropped = form[:at] + form[at + 1 :]
    swapped = form[:at] + form[at + 1] + form[at] + form[at + 2 :] if at + 1 in digits else changed
    moved = form.replace(".", "") if "." in form else re.sub(r"\d", r"\g<0>.", form, count=1)
    scaled = form.replace(" scores", "%") if " scores" in form else form.replace("%", " scores")
    return [changed, doubled, dropped, swapped, moved, scaled, random.choice(_WORDS)]


def _is_a_form(form: str, figures: list[Figure]) -> bool:
    """Whether the corrupted form is right by chance: what it says is a figure, rounded to the decimals that it has."""
    number, unit = re.fullmatch(r"([\d., ]*\d)?(.*)", form).groups()  # type: ignore[union-attr]
    words = [word for word in _WORDS if unit.startswith(f"{word} ") or unit == word]
    written = Decimal(re.sub("[ ,]", "", number or str(_WORDS.index(words[-1]))))
    counted, percent = " scores" in unit, any(each in unit for each in ("%", "point"))
    for figure in figures:
        value = Decimal(repr(figure.value))
        for scaled in (value, 100 * value) if figure.kind == "share" else (value,):
            fits = not (percent and (scaled is value or figure.kind != "share")) and not (
                counted and figure.kind != "count"
            )
            roundings = (ROUND_HALF_EVEN, ROUND_HALF_UP)
            if fits and written in (scaled, *(scaled.quantize(written, each) for each in roundings)):
                return True
    return False


@suite(max_examples=200)
@given(seed=st.integers(0, 10**9))
def test_texts_that_state_what_was_measured_are_never_refused(seed: int):
    drawn = random.Random(seed)
    figures = _drawn(drawn)
    text, forms = _said(drawn, figures)
    assert states_only_known_figures(text.format(*forms), figures) == []


def test_a_single_figure_that_was_corrupted_is_caught():
    """But where the corrupted number is another figure by chance: that, a text may state."""
    drawn, refused, corrupted = random.Random(7), 0, 0
    for _ in range(4_000):
        figures = _drawn(drawn)
        text, forms = _said(drawn, figures)
        at = drawn.randrange(len(forms))
        wrong = drawn.choice(_corruptions(forms[at], drawn))
        if not re.match(r"\d|[a-z]", wrong) or _is_a_form(wrong, figures):
            continue
        corrupted += 1
        refused += bool(states_only_known_figures(text.format(*forms[:at], wrong, *forms[at + 1 :]), figures))
    assert corrupted > 2_000
    assert refused / corrupted >= 0.995
