"""Interactions of one connection, redacted, as rows: which reader a place is read by, and what happens to each record.

When windows are due and where rows go is in `clouds/collection.py`, as for every other kind.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from importlib import import_module
from typing import Any, cast

from optiinfra_pipelines.clouds.collecting import Findings, Source, naive_utc
from optiinfra_pipelines.customers import Customer
from optiinfra_pipelines.llm.interaction import UNKNOWN, Found, Interaction, Texts, interaction_row
from optiinfra_pipelines.llm.openai_bodies import clean
from optiinfra_pipelines.llm.redaction import Redactor, open_redactor
from optiinfra_pipelines.places import LlmFormat, LlmSource
from optiinfra_pipelines.settings import Settings
from optiinfra_pipelines.tables.contract import Table
from optiinfra_pipelines.windows import Window, floor_window

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

    Everything is redacted before it is anybody's row; texts are not where the settings keep them as they are.
    """
    findings = Findings()
    redactor = open_redactor(settings, customer.redact)
    for place in source.connection.llm:
        rows: list[dict[str, Any]] = []
        with findings.part():
            for found in reader_of(place)(source, place, span):
                if not isinstance(found, Interaction):
                    record = redacted_record(redactor, found.record) | {"source": _named(place)}
                    record |= {"window_start": naive_utc(floor_window(found.at))} if found.at else {}
                    findings.unfit.append((record, found.reason))
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
    found = replace(
        found,
        details=redacted_record(redactor, found.details),
        conversation_id=_nobodys(redactor, customer, found.conversation_id),
    )
    application = found.application or place.application or UNKNOWN
    ours = application == (place.application or UNKNOWN)  # a place's name is not that of what a record names itself
    return interaction_row(
        customer.id,
        _named(place),
        found,
        texts,
        redactions,
        "" if keep_text else redactor.version,
        application=application,
        application_name=customer.application(application).name or (place.application_name if ours else None) or "",
        variant=place.variant or "",
    )


def _nobodys(redactor: Redactor, customer: Customer, conversation_id: str | None) -> str | None:
    """The id of a conversation; one that holds personal data by a hash, so that conversations stay apart."""
    if not conversation_id or redactor.redact(Texts(input=conversation_id))[1] == 0:
        return conversation_id
    return sha256(f"{customer.id}\0{conversation_id}".encode()).hexdigest()[:32]


def redacted_record(redactor: Redactor, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record, or what one told besides its texts, with every text and number in it redacted, and the keys as well.

    A value is looked at with its key before it, too: what `password` stands before is one.
    """

    def redacted(text: str) -> str:
        return redactor.redact(Texts(input=clean(text)))[0].input

    def told(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {redacted(str(key)): told(each, str(key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [told(each, name) for each in value]
        if value is None or isinstance(value, bool):
            return value
        said, named = clean(str(value)), clean(f"{name}: ")
        left = redacted(named + said)
        left = left.removeprefix(named) if left.startswith(named) else redacted(said)
        return value if left == str(value) else left

    return {redacted(str(key)): told(value, str(key)) for key, value in record.items()}


def _named(place: LlmSource) -> str:
    return f"{place.format}:{place.location}"
