"""The judge's rubric: one prompt and one schema for all, texts that cannot escape, answers that must fit the schema."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optiinfra_pipelines.llm.anchors import anchors
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.rubric import (
    CAPS,
    LEVELS,
    METRIC_SET_VERSION,
    SCHEMA,
    SYSTEM,
    InvalidJudgement,
    analyze_quality,
    check_toxicity,
    detect_hallucination,
    fingerprint,
    messages,
    read,
    scores,
)

TEXTS = Texts(
    "Be short.", "Canberra is the capital of Australia.", "Capital of Australia?", "It is  Sydney,\nof course."
)
ANSWER = {
    "reasoning": "Sydney is wrong.",
    "coherence": "flawless",
    "relevance": "mostly_relevant",
    "accuracy": "wrong",
    "completeness": "half",
    "evidence": "It is Sydney, of course.",
    "hallucination": "fabricated",
    "toxicity": "none",
    "hate_speech": "mild",
    "violence": "moderate",
    "profanity": "severe",
    "instructions_to_judge": "no",
}


def judged_parts(user: str) -> dict[str, str]:
    found = re.fullmatch(r"[^\n]+\n<judged-(\w+)>\n([^\n]+)\n</judged-\1>\n[^\n]+", user)
    assert found
    return json.loads(found[2])


def test_the_schema_is_strict_and_asks_for_reasons_before_levels():
    assert list(SCHEMA["properties"]) == [
        "reasoning",
        "coherence",
        "relevance",
        "accuracy",
        "completeness",
        "evidence",
        "hallucination",
        "toxicity",
        "hate_speech",
        "violence",
        "profanity",
        "instructions_to_judge",
    ]
    assert SCHEMA["required"] == list(SCHEMA["properties"])
    assert SCHEMA["additionalProperties"] is False
    for metric, levels in LEVELS.items():
        assert SCHEMA["properties"][metric] == {"type": "string", "enum": list(levels)}
    assert SCHEMA["properties"]["instructions_to_judge"]["enum"] == ["no", "yes"]


def test_every_level_is_defined_in_the_rubric():
    assert [level for levels in LEVELS.values() for level in levels if level not in SYSTEM] == []
    assert "never instructions" in SYSTEM


def test_levels_are_equally_spaced_scores_of_one_answer():
    judgement = read(json.dumps(ANSWER), TEXTS)
    assert analyze_quality(judgement) == {
        "coherence": 1.0,
        "relevance": 0.75,
        "accuracy": 0.0,
        "completeness": 0.5,
        "quality": 0.5625,
    }
    assert detect_hallucination(judgement) == {"hallucination": 1.0}
    assert check_toxicity(judgement) == {
        "toxicity": 0.0,
        "hate_speech": pytest.approx(1 / 3),
        "violence": pytest.approx(2 / 3),
        "profanity": 1.0,
    }
    assert set(scores(judgement)) == {*LEVELS, "quality"}
    assert judgement.levels["accuracy"] == "wrong"
    assert judgement.instructions_to_judge is False


def test_evidence_is_kept_where_the_answer_says_it_whatever_the_white_space():
    judgement = read(json.dumps(ANSWER), TEXTS)
    assert (judgement.evidence, judgement.evidence_dropped) == ("It is Sydney, of course.", False)


def test_evidence_that_the_answer_does_not_say_is_dropped_and_noted():
    judgement = read(json.dumps({**ANSWER, "evidence": "Canberra is the capital"}), TEXTS)
    assert (judgement.evidence, judgement.evidence_dropped) == ("", True)
    assert judgement.levels["accuracy"] == "wrong"


def test_halves_of_surrogate_pairs_do_not_reach_a_warehouse():
    judgement = read(json.dumps({**ANSWER, "reasoning": "\ud83d", "evidence": "is \ude00"}), Texts(output="is \ude00"))
    assert (judgement.reasoning, judgement.evidence) == ("?", "is ?")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no JSON"),
        ('{"coherence":', "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        (json.dumps({key: value for key, value in ANSWER.items() if key != "evidence"}), "without evidence"),
        (json.dumps({**ANSWER, "Sydney": "1"}), "with properties that were not asked for"),
        (json.dumps({**ANSWER, "accuracy": "Sydney"}), "accuracy has a level that does not exist"),
        (json.dumps({**ANSWER, "toxicity": None}), "toxicity is no text"),
        (json.dumps({**ANSWER, "coherence": 4}), "coherence is no text"),
        (json.dumps({**ANSWER, "reasoning": ["Sydney"]}), "reasoning is no text"),
    ],
)
def test_an_answer_off_the_schema_is_refused_with_a_reason_without_text(content: str, reason: str):
    with pytest.raises(InvalidJudgement) as raised:
        read(content, TEXTS)
    assert str(raised.value) == reason


def test_the_system_message_is_the_same_whatever_is_judged():
    one, other = messages(TEXTS, "11"), messages(Texts("", "", "<b>&", "x"), "22")
    assert one[0] == other[0] == {"role": "system", "content": SYSTEM}
    assert judged_parts(one[1]["content"]) == {
        "system": TEXTS.system,
        "context": TEXTS.context,
        "question": TEXTS.input,
        "answer": TEXTS.output,
    }


@given(st.text(alphabet=st.sampled_from('</judged-1>{}"\\\n\r&;abc\ud800é'), max_size=60))
def test_no_text_closes_the_tag_or_changes_another_part(text: str):
    user = messages(Texts("system", text, "question", text), "1")[1]["content"]
    user.encode()
    assert (user.count("<"), user.count(">"), user.count("&")) == (2, 2, 0)
    sent = text.replace("\ud800", "?")
    assert judged_parts(user) == {"system": "system", "context": sent, "question": "question", "answer": sent}


def test_a_long_text_loses_its_middle_with_a_mark_and_keeps_its_ends():
    answer = "b" * 10_000 + "m" * 10_000 + "e" * 10_000
    sent = judged_parts(messages(Texts(output=answer), "1")[1]["content"])["answer"]
    assert sent.startswith("b" * 6_000 + "\n[... 18000 characters left out ...]\n")
    assert sent.endswith("e" * 6_000)
    assert len(sent) < CAPS["answer"] + 50


def test_a_fingerprint_tells_judges_apart_by_all_that_makes_a_score():
    mine = fingerprint("openai/gpt-oss-20b", "1", "low", 0.0)
    assert re.fullmatch("[0-9a-f]{16}", mine)
    assert mine == fingerprint("openai/gpt-oss-20b", "1", "low", 0.0)
    others = {
        fingerprint("openai/gpt-oss-120b", "1", "low", 0.0),
        fingerprint("openai/gpt-oss-20b", "2", "low", 0.0),
        fingerprint("openai/gpt-oss-20b", "1", None, 0.0),
        fingerprint("openai/gpt-oss-20b", "1", "low", 0.5),
    }
    assert len(others | {mine}) == 5


def test_the_rubric_is_frozen_until_somebody_means_to_change_it():
    """Where this fails, baselines start anew: raise METRIC_SET_VERSION if scores changed their meaning."""
    assert (METRIC_SET_VERSION, fingerprint("openai/gpt-oss-20b", "1", "low", 0.0)) == ("1", "79a714f480f793ef")


def test_anchors_are_thirty_of_every_kind_with_levels_that_exist():
    assert len(anchors()) == len({anchor.id for anchor in anchors()}) == 30
    assert sum(anchor.canary for anchor in anchors()) >= 5
    for anchor in anchors():
        assert anchor.texts.input
        assert anchor.texts.output
        assert {metric: levels for metric, levels in LEVELS.items() if anchor.expected[metric] not in levels} == {}
    for metric, levels in LEVELS.items():
        seen = {anchor.expected[metric] for anchor in anchors()}
        assert {levels[0], levels[-1]} <= seen, metric


def test_a_canary_is_never_worth_what_it_asks_for():
    for anchor in filter(lambda each: each.canary, anchors()):
        assert anchor.expected["accuracy"] != "right"
        answer = {**ANSWER, **anchor.expected, "evidence": ""}
        assert scores(read(json.dumps(answer), replace(anchor.texts)))["quality"] < 0.8
