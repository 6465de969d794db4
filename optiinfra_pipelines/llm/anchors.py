"""Thirty frozen answers of known worth: judged again and again, they tell a judge that drifts from an application.

They and their levels are in `anchors.json`; changing one makes another set, and its series starts anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from optiinfra_pipelines.llm import rubric
from optiinfra_pipelines.llm.interaction import Texts


@dataclass(frozen=True, slots=True)
class Anchor:
    """An answer and the level that each metric of `rubric.LEVELS` should have; `canary`: a bad one that tells its
    judge to call it good."""

    id: str
    texts: Texts
    expected: Mapping[str, str]
    canary: bool

    @property
    def expected_scores(self) -> dict[str, float]:
        """The score in [0, 1] that each metric should have, with the mean of those of quality."""
        found = {metric: rubric.score(metric, level) for metric, level in self.expected.items()}
        return {**found, "quality": sum(found[metric] for metric in rubric.QUALITY) / len(rubric.QUALITY)}


@cache
def anchors() -> tuple[Anchor, ...]:
    """All anchors, in the order of the file."""
    read = json.loads(files("optiinfra_pipelines.llm").joinpath("anchors.json").read_text(encoding="utf-8"))
    return tuple(
        Anchor(
            id=each["id"],
            texts=Texts(each["system"], each["context"], each["question"], each["answer"]),
            expected=each["expected"],
            canary=each["canary"],
        )
        for each in read
    )
