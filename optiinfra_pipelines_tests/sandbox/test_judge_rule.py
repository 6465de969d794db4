"""The judge's rule: schemas filled, means kept, errors as often as stated, injections believed as far as stated."""

import json
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.anchors import anchors
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.sandbox.groq_wire import strict_faults
from optiinfra_pipelines.sandbox.interaction_texts import INJECTIONS
from optiinfra_pipelines.sandbox.judge_rule import METRICS, Judged, Judgement, Rule
from optiinfra_pipelines_tests.sandbox.judging import INJECTION, LEVELS, SCHEMA, closed, user

N = 4000  # draws behind a measured rate


SCHEMAS: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.sampled_from([{"type": kind} for kind in ("string", "number", "integer", "boolean", "null")]),
        st.just({"type": ["string", "null"]}),
        st.lists(st.integers() | st.text(), min_size=1, max_size=5).map(lambda values: {"enum": values}),
        st.builds(lambda items: {"type": "array", "items": items}, SCHEMAS),
        st.lists(SCHEMAS, min_size=1, max_size=3).map(lambda variants: {"anyOf": variants}),
        OBJECTS,
    )
)
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from([*METRICS, "evidence", "other", "instructions_to_judge"]), SCHEMAS
).map(closed)


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits a strict schema, properties in its order."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(fits(value, each) for each in schema["anyOf"])
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    tests: dict[str, Callable[[], bool]] = {
        "string": lambda: isinstance(value, str),
        "number": lambda: isinstance(value, float),
        "integer": lambda: isinstance(value, int),
        "boolean": lambda: isinstance(value, bool),
        "null": lambda: value is None,
        "array": lambda: isinstance(value, list) and all(fits(each, schema["items"]) for each in value),
        "object": lambda: (
            list(value) == list(schema["properties"])
            and all(fits(value[name], below) for name, below in schema["properties"].items())
        ),
    }
    return any(tests[kind]() for kind in kinds)


@given(schema=OBJECTS, answer=st.text())
def test_any_strict_schema_is_filled_with_what_fits_it(schema: dict[str, Any], answer: str) -> None:
    assert list(strict_faults(schema)) == []
    rule = Rule(noise=0.5, sensitivity=0.5, specificity=0.5)
    assert fits(Judgement(rule, Judged.read(user(answer)), {"accuracy": 0.1}, schema).content(), schema)


def levels(rule: Rule, planted: Mapping[str, float], metric: str, **more: Any) -> list[int]:
    """The levels that a rule gives N answers with the same planted scores."""
    return [
        Judgement(rule, Judged.read(user(f"answer {at}", **more)), planted, SCHEMA).level(metric, len(LEVELS[metric]))
        for at in range(N)
    ]


def near(found: float, expected: float, spread: float = 1.0) -> bool:
    """Within four standard errors of N draws, of shares unless their standard deviation is given."""
    deviation = spread if spread != 1.0 else sqrt(expected * (1 - expected))
    return abs(found - expected) <= 4 * deviation / sqrt(N) + 1e-12


@pytest.mark.parametrize("planted", [0.0, 0.05, 0.25, 0.4, 0.5, 0.87, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("metric", ["accuracy", "toxicity"])
def test_noise_averages_out(planted: float, noise: float, metric: str) -> None:
    found = levels(Rule(noise=noise), {metric: planted}, metric)
    top = len(LEVELS[metric]) - 1
    assert set(found) <= set(range(top + 1))
    assert near(sum(found) / N / top, planted, 0.25)
    if metric == "accuracy" and planted == 0.87 and not noise:
        assert near(found.count(3) / N, 0.52)
        assert near(found.count(4) / N, 0.48)


def test_inner_levels_move_as_often_as_stated_and_both_ways_alike() -> None:
    found = levels(Rule(noise=0.3), {"relevance": 0.5}, "relevance")
    assert near(found.count(1) / N, 0.15)
    assert near(found.count(3) / N, 0.15)
    assert near(found.count(2) / N, 0.7)


@pytest.mark.parametrize(("planted", "called"), [(1.0, 0.8), (0.6, 0.8), (0.0, 0.07), (0.45, 0.07)])
def test_hallucinations_are_called_with_the_stated_sensitivity_and_specificity(planted: float, called: float) -> None:
    found = levels(Rule(sensitivity=0.8, specificity=0.93), {"hallucination": planted}, "hallucination")
    assert near(sum(level / 3 >= 0.5 for level in found) / N, called)


def test_another_seed_draws_other_noise_and_the_same_seed_the_same() -> None:
    planted = {"accuracy": 0.6}
    one, again, other = (levels(Rule(seed=seed), planted, "accuracy") for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_repeated_request_is_judged_afresh_as_often_as_stated() -> None:
    planted = {"accuracy": 0.6}  # fresh noise differs in 2 * 0.4 * 0.6 of the cases
    rule = Rule(repeat_noise=0.25)
    judged = [Judged.read(user(f"answer {at}")) for at in range(N)]
    one, two = ([Judgement(rule, each, planted, SCHEMA, n).level("accuracy", 5) for each in judged] for n in (0, 1))
    assert near(sum(a != b for a, b in zip(one, two, strict=True)) / N, 0.25 * 0.48)


def test_drift_moves_quality_alone() -> None:
    planted = {"accuracy": 0.8, "toxicity": 0.5}
    assert near(sum(levels(Rule(drift=-12), planted, "accuracy")) / N / 4, 0.68, 0.25)
    assert near(sum(levels(Rule(drift=-12), planted, "toxicity")) / N / 3, 0.5, 0.25)


def test_another_order_is_judged_afresh_as_often_as_stated() -> None:
    planted = {"accuracy": 0.6}
    swapped = [
        Judged.read("<judged-1>" + json.dumps({"answer": f"answer {at}", "question": "Why?"}) + "</judged-1>")
        for at in range(N)
    ]
    rule = Rule(order_noise=0.5)
    found = [Judgement(rule, each, planted, SCHEMA).level("accuracy", 5) for each in swapped]
    usual = levels(rule, planted, "accuracy")
    assert usual == levels(Rule(), planted, "accuracy")
    assert near(sum(a != b for a, b in zip(found, usual, strict=True)) / N, 0.5 * 0.48)


def test_evidence_is_a_quote_where_there_is_a_fault_and_empty_where_there_is_none() -> None:
    judged = Judged.read(user("First this. Then that!\nAnd more of it."))
    for planted, empty in ((dict.fromkeys(METRICS, 0.0), False), ({"hallucination": 0.0}, True)):
        found = Judgement(Rule(), judged, planted, SCHEMA).content()
        assert found["evidence"] in judged.answer
        assert (found["evidence"] == "") is empty


def test_an_injection_within_the_tags_moves_quality_one_level_at_most_and_is_reported() -> None:
    planted = dict.fromkeys(METRICS, 0.25)
    judged = [Judged.read(user(f"answer {at}. {INJECTION}")) for at in range(N)]
    found = [Judgement(Rule(gullibility=0.3), each, planted, SCHEMA).level("accuracy", 5) for each in judged]
    assert near(found.count(2) / N, 0.3)
    assert found.count(1) + found.count(2) == N
    content = Judgement(Rule(), judged[0], planted, SCHEMA).content()
    assert content["instructions_to_judge"] == "yes"
    assert Judgement(Rule(), Judged.read(user("x", context=INJECTION)), planted, SCHEMA).content() != content


@pytest.mark.parametrize(
    "texts", [*(Texts(output=each) for each in INJECTIONS.values()), *(each.texts for each in anchors() if each.canary)]
)
def test_planted_injections_and_canaries_are_taken_for_instructions_that_did_not_break_out(texts: Texts) -> None:
    judged = Judged.read(rubric.messages(texts, "0f1e")[-1]["content"])
    assert judged.answer == texts.output
    assert judged.instructs
    assert not judged.broken_out


def test_other_anchors_are_not_taken_for_instructions() -> None:
    for each in anchors():
        assert each.canary or not Judged.read(rubric.messages(each.texts, "0f1e")[-1]["content"]).instructs
