"""What Microsoft's Presidio finds beside the built-in rules: wallets, medical licences, more telephone numbers.

Needs the optional extra `presidio`. It takes some plain numbers for telephones. No language model and no network: names
of persons and places are not found, and Presidio's e-mail rule, which fetches a list of domains, is not asked.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from optiinfra_pipelines.llm.redaction import KINDS, RULES, Finding, Redactor

ENTITIES: Mapping[str, str] = MappingProxyType(
    {
        "CREDIT_CARD": "CARD",
        "IBAN_CODE": "IBAN",
        "PHONE_NUMBER": "PHONE",
        "CRYPTO": "CRYPTO",
        "MEDICAL_LICENSE": "MEDICAL_LICENSE",
    }
)
"""Presidio's name of what is asked for -> kind of its placeholder."""
LEAST_SCORE = 0.75  # what has a check digit scores 1; lower scores are shapes alone, such as any nine digits
LEAST_PHONE_SCORE = 0.4  # telephone numbers never score more without a language model


class PresidioRedactor(Redactor):
    """A Redactor that adds Presidio's findings to its own; ImportError where the extra is not installed."""

    kinds = tuple(dict.fromkeys((*KINDS, *ENTITIES.values())))

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._analyzer, release = _analyzer()
        self.rules = f"{RULES}+presidio-{release}"
        super().__init__(patterns)

    def findings(self, text: str) -> Iterator[Finding]:
        """The built-in findings first, then Presidio's."""
        yield from super().findings(text)
        for each in self._analyzer.analyze(text, language="en", entities=list(ENTITIES)):
            if each.score >= (LEAST_PHONE_SCORE if each.entity_type == "PHONE_NUMBER" else LEAST_SCORE):
                value = text[each.start : each.end]
                yield Finding(each.start, each.end, ENTITIES[each.entity_type], "".join(filter(str.isalnum, value)))


def presidio_redactor(patterns: Mapping[str, str] = MappingProxyType({})) -> Redactor:
    """A Redactor with Presidio's rules as well; about 30 times as slow as the built-in one alone."""
    return PresidioRedactor(patterns)


def _analyzer() -> tuple[Any, str]:
    try:
        presidio, engines = import_module("presidio_analyzer"), import_module("presidio_analyzer.nlp_engine")
    except ImportError as error:
        raise ImportError("Presidio is not installed: pip install 'optiinfra-pipelines[presidio]'") from error
    no_model = engines.NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
    engine = presidio.AnalyzerEngine(nlp_engine=no_model, supported_languages=["en"])
    return engine, version("presidio-analyzer")
