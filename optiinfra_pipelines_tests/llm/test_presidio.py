"""Presidio beside the built-in rules: more kinds, the same promises."""

import pytest

from optiinfra_pipelines.llm.interaction import Texts
from optiinfra_pipelines.llm.presidio import presidio_redactor
from optiinfra_pipelines.llm.redaction import Redactor

pytest.importorskip("presidio_analyzer", reason="the optional extra presidio is not installed")


def test_presidio_adds_what_the_built_in_rules_do_not_know() -> None:
    redactor = presidio_redactor({"EMPLOYEE": r"E-\d{5}"})
    said = "wallet 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa, jane@example.com, E-12345, 2 May 2024"
    texts, count = redactor.redact(Texts(input=said))
    assert texts.input == "wallet [CRYPTO_1], [EMAIL_1], [EMPLOYEE_1], 2 May 2024"
    assert count == 3
    assert redactor.redact(texts) == (texts, 0)


def test_presidios_version_is_part_of_the_redactors() -> None:
    assert presidio_redactor().version.startswith(f"{Redactor().version}+presidio-")
