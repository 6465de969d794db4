"""Labelled files as HaluEval and RAGTruth publish them, and lines that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.labelled import BadLine, read_labelled

GENERAL = {
    "ID": "7",
    "user_query": "Who wrote Faust?",
    "chatgpt_response": "Schiller did.",
    "hallucination": "yes",
    "hallucination_spans": ["Schiller did."],
}
ANSWER = {
    "knowledge": "Goethe wrote Faust.",
    "question": "Who wrote Faust?",
    "right_answer": "Goethe",
    "hallucinated_answer": "Schiller",
}
PASSAGES = "passage 1:Wash the beets.\n\npassage 2:Serve with butter.\n\n"
QUESTION = {
    "source_id": "14312",
    "task_type": "QA",
    "source": "MARCO",
    "source_info": {"question": "how to prepare beets", "passages": PASSAGES},
    "prompt": f"Briefly answer the following question:\nhow to prepare beets\nBy these passages:\n{PASSAGES}\noutput:",
}
SUMMARY = {
    "source_id": "11316",
    "task_type": "Summary",
    "source_info": "The court met on Wednesday.",
    "prompt": "Summarize the following news within 10 words:\nThe court met on Wednesday.\noutput:",
}
BUSINESS = {"name": "Subway", "attributes": {"WiFi": "no", "Music": None, "OutdoorSeating": True}}
OVERVIEW = {
    "source_id": "13661",
    "task_type": "Data2txt",
    "source_info": BUSINESS,
    "prompt": f"Write an overview of the business. Structured data:\n{BUSINESS}\nOverview:",
}
SPAN = {"start": 0, "end": 4, "text": "Wash", "label_type": "Evident Baseless Info"}


def written(path: Path, *records: Any) -> Path:
    lines = (each if isinstance(each, str) else json.dumps(each) for each in records)
    path.write_text("\n".join(lines) + "\n")
    return path


def answered(number: int, source: str, *labels: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{number}",
        "source_id": source,
        "model": "m",
        "labels": list(labels),
        "response": f"Answer {number}.",
    }


def test_answers_to_general_questions_are_labelled_yes_or_no(tmp_path: Path) -> None:
    found = read_labelled(written(tmp_path / "general.jsonl", GENERAL, {**GENERAL, "ID": "8", "hallucination": "No"}))
    assert [(each.id, each.labels) for each in found.items] == [
        ("7", {"hallucination": True}),
        ("8", {"hallucination": False}),
    ]
    assert found.items[0].texts == Texts(input="Who wrote Faust?", output="Schiller did.")
    assert found.bad == ()


def test_a_question_with_a_right_and_a_hallucinated_answer_is_two_items(tmp_path: Path) -> None:
    dialogue = {
        "knowledge": "Faust is a play.",
        "dialogue_history": "[Human]: What is Faust?",
        "right_response": "A play.",
        "hallucinated_response": "A film.",
    }
    summary = {"document": "The court met.", "right_summary": "It met.", "hallucinated_summary": "It fell."}
    right, wrong, *others = read_labelled(written(tmp_path / "pairs.jsonl", ANSWER, dialogue, summary)).items
    assert right.texts == Texts("", "Goethe wrote Faust.", "Who wrote Faust?", "Goethe")
    assert wrong.texts == Texts("", "Goethe wrote Faust.", "Who wrote Faust?", "Schiller")
    assert (right.labels, wrong.labels) == ({"hallucination": False}, {"hallucination": True})
    assert [(each.texts.context, each.texts.output, each.labels["hallucination"]) for each in others] == [
        ("Faust is a play.", "A play.", False),
        ("Faust is a play.", "A film.", True),
        ("The court met.", "It met.", False),
        ("The court met.", "It fell.", True),
    ]
    assert all(each.texts.input for each in others)


def test_an_answer_with_marked_spans_is_positive_and_rests_on_its_source(tmp_path: Path) -> None:
    written(tmp_path / "source_info.jsonl", QUESTION, SUMMARY, OVERVIEW)
    path = written(
        tmp_path / "response.jsonl", answered(1, "14312", SPAN), answered(2, "11316"), answered(3, "13661", SPAN)
    )
    question, summary, overview = read_labelled(path).items
    assert [each.labels["hallucination"] for each in (question, summary, overview)] == [True, False, True]
    assert question.texts.context == PASSAGES
    assert question.texts.output == "Answer 1."
    assert summary.texts.context == "The court met on Wednesday."
    assert json.loads(overview.texts.context) == BUSINESS
    for each, asked in ((question, "how to prepare beets"), (summary, "within 10 words"), (overview, "an overview")):
        assert asked in each.texts.input
        assert "(the context)" in each.texts.input
    assert "Serve with butter" not in question.texts.input
    assert "Subway" not in overview.texts.input


def test_a_span_that_is_true_by_common_knowledge_is_no_hallucination(tmp_path: Path) -> None:
    written(tmp_path / "source_info.jsonl", SUMMARY)
    known, unknown = {**SPAN, "implicit_true": True}, {**SPAN, "implicit_true": False}
    path = written(tmp_path / "response.jsonl", answered(1, "11316", known), answered(2, "11316", known, unknown))
    assert [each.labels["hallucination"] for each in read_labelled(path).items] == [False, True]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "no JSON object"),
        ({"question": "canary"}, "its fields are of no known shape"),
        ({**GENERAL, "hallucination": "canary"}, "hallucination is neither yes nor no"),
        ({**GENERAL, "chatgpt_response": "  "}, "chatgpt_response is empty"),
        ({**GENERAL, "user_query": ["canary"]}, "user_query is no text"),
        ({**ANSWER, "right_answer": None}, "right_answer is no text"),
        (answered(1, "canary"), "its source is not in source_info.jsonl"),
        ({**answered(1, "11316"), "labels": "canary"}, "labels is no list of spans"),
        (answered(1, "empty"), "source_info of its source is neither a text nor an object"),
    ],
)
def test_a_line_that_is_no_labelled_answer_is_named_with_its_reason_and_the_others_are_read(
    tmp_path: Path, line: Any, reason: str
) -> None:
    written(tmp_path / "source_info.jsonl", SUMMARY, {**SUMMARY, "source_id": "empty", "source_info": " "})
    found = read_labelled(written(tmp_path / "some.jsonl", GENERAL, "", line, {**GENERAL, "ID": "9"}))
    assert [each.id for each in found.items] == ["7", "9"]
    assert found.bad == (BadLine("some.jsonl", 3, reason),)
    assert str(found.bad[0]) == f"some.jsonl:3: {reason}"


def test_a_line_of_the_sources_that_is_none_is_named_too(tmp_path: Path) -> None:
    written(tmp_path / "source_info.jsonl", SUMMARY, "{", {"source_id": "2"})
    found = read_labelled(written(tmp_path / "response.jsonl", answered(1, "11316")))
    assert [str(each) for each in found.bad] == [
        "source_info.jsonl:2: no JSON",
        "source_info.jsonl:3: without source_id, source_info or prompt",
    ]


def test_an_id_that_stands_twice_gets_its_line_number(tmp_path: Path) -> None:
    found = read_labelled(written(tmp_path / "general.jsonl", GENERAL, GENERAL))
    assert [each.id for each in found.items] == ["7", "7@2"]


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "general.jsonl"
    path.write_bytes(b'{"user_query": "\xff"}\n' + json.dumps(GENERAL).encode())
    assert [(each.line, each.reason) for each in read_labelled(path).bad] == [(1, "no JSON")]


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n1,2\n", '{"prompt": "a", "completion": "b"}\n'])
def test_a_file_of_no_known_shape_is_one_error_that_lists_the_known_ones(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(CollectionError, match=r"no line of a known shape.*HaluEval.*RAGTruth") as raised:
        read_labelled(path)
    assert raised.value.kind == "malformed"


def test_a_file_that_is_not_there_or_lacks_its_sources_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="cannot be read"):
        read_labelled(tmp_path / "missing.jsonl")
    with pytest.raises(CollectionError, match=r"source_info\.jsonl must lie beside it"):
        read_labelled(written(tmp_path / "response.jsonl", answered(1, "11316")))


def test_the_whole_of_halueval_is_read(data: Path) -> None:
    found = read_labelled(data / "llm" / "halueval" / "general_data_visible.jsonl")
    assert (len(found.items), found.bad) == (2250, ())
    assert len({each.id for each in found.items}) == 2250
    assert sum(each.labels["hallucination"] for each in found.items) == 415
