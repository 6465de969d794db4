"""Interactions of one connection, redacted, as rows: which reader a place is read by, and what happens to each record.

When windows are due and where rows go is in `clouds/collection.py`, as for every other kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

from optiinfra_pipelines.clouds.collecting import Findings, Source
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.interaction import Found, Interaction, Texts, interaction_row
from optiinfra_pipelines.llm.redaction import Redactor, open_redactor
from optiinfra_pipelines.places import LlmFormat, LlmSource
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import Window

Reader = Callable[[Source, LlmSource, Window], Iterator[Found]]
"""Every interaction of the place whose timestamp lies in the window, each once; CollectionError where it cannot be
read as a whole."""

_READERS: dict[LlmFormat, tuple[str, str]] = {
    "bedrock": ("optiinfra_pipelines.clouds.aws.interactions", "bedrock_interactions"),
    "vertex": ("optiinfra_pipelines.clouds.gcp.interactions", "vertex_interactions"),
    "azure": ("optiinfra_pipelines.clouds.azure.interactions", "azure_interactions"),
    "opentelemetry": ("optiinfra_pipelines.llm.opentelemetry", "opentelemetry_interactions"),
}
_ROWS = 2_000  # made Arrow at a time: texts are long


def reader_of(place: LlmSource) -> Reader:
    """The reader of the place's format; nothing is contacted."""
    module, name = _READERS[place.format]
    return cast(Reader, getattr(import_module(module), name))


def llm_interactions(source: Source, table: Table, settings: Settings, customer: Customer, span: Window) -> Findings:
    """Every interaction of `span` in the connection's places; a place that fails is a failure of that part alone.

    Texts are redacted before they are anybody's row, unless the settings keep them as they are.
    """
    findings = Findings()
    redactor = open_redactor(settings, customer)
    for place in source.connection.llm:
        rows: list[dict[str, Any]] = []
        with findings.part():
            for found in reader_of(place)(source, place, span):
                if not isinstance(found, Interaction):
                    record = redacted_record(redactor, found.record)
                    findings.unfit.append((record | {"source": _named(place)}, found.reason))
                    continue
                rows.append(_row(customer, place, found, redactor, settings.keep_unredacted_text))
                if len(rows) == _ROWS:
                    findings.add_rows(table, rows)
                    rows = []
        findings.add_rows(table, rows)
    return findings


def _row(
    customer: Customer, place: LlmSource, found: Interaction, redactor: Redactor, keep_text: bool
) -> dict[str, Any]:
    texts, redactions = (found.texts, 0) if keep_text else redactor.redact(found.texts)
    if not keep_text:
        found = replace(found, details=redacted_record(redactor, found.details))
    application = found.application or place.application or ""
    return interaction_row(
        customer.id,
        _named(place),
        found,
        texts,
        redactions,
        "" if keep_text else redactor.version,
        application=application,
        application_name=customer.application(application).name or place.application_name or "",
        variant=place.variant or "",
    )


def redacted_record(redactor: Redactor, record: Any) -> dict[str, Any]:
    """A record, or what one told besides its texts, with every text in it redacted."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return redactor.redact(Texts(input=value))[0].input
        if isinstance(value, dict):
            return {str(key): clean(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [clean(each) for each in value]
        return value

    return {str(key): clean(value) for key, value in dict(record).items()}


def _named(place: LlmSource) -> str:
    return f"{place.format}:{place.location}"
