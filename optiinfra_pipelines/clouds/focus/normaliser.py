"""From the columns that a bill happens to have to the SELECT that makes contract rows of them.

Text in, text out: nothing is read here. FOCUS layouts are mapped here, Cost and Usage Reports in `cur.py`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from optiinfra_pipelines.clouds.focus import cur
from optiinfra_pipelines.clouds.focus.sql import (
    NULL,
    OWN,
    Value,
    column,
    identifier,
    literal,
    money,
    one_of,
    required,
    text,
    timestamp,
    within_bills,
)
from optiinfra_pipelines.tables.contract import Type
from optiinfra_pipelines.tables.focus import FOCUS_COLUMNS, FocusColumn
from optiinfra_pipelines.windows import BillingPeriod

MAPPING_VERSION = 3  # raise it when the same file would give other rows: every period is then loaded afresh

ROW_NUMBER, SOURCE = "x_row_number", "x_source"  # columns that the reader adds to each row

# Spellings met in the wild, lower case -> FOCUS name. Case alone never matters.
ALIASES = {
    "x_invoiceid": "InvoiceId",  # Azure's FOCUS 1.0 exports, before FOCUS had the column
    "invoiceissuer": "InvoiceIssuerName",
    "provider": "ProviderName",
    "publisher": "PublisherName",
    "region": "RegionName",
}
# What Azure prints for "none" (FinOps toolkit, known issues of the FOCUS export).
PLACEHOLDERS = ("-2", "Unassigned")
_PLACEHOLDER_COLUMNS = {"SkuId", "SkuPriceId", "RegionId", "RegionName", "SubAccountName", "ResourceType"}
# Without these a charge can be placed in no month, in no sum and in no currency.
REQUIRED = {
    "BilledCost",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ChargeCategory",
}
_STRICT = {"ChargeCategory"}
# A bill of months that writes 1/10/26 for its 1 October would be read as one of 10 January.
_DAY_FIRST = "contains({given}, '/') AND month({own}) = 1 AND day({own}) BETWEEN 2 AND 12"
_IS_DAY_FIRST = "begins within January, or is day/month/year: dates are read as month/day/year or 2026-10-01"

Layout = Literal["focus", "cur"]


@dataclass(frozen=True)
class Origin:
    """What is known of a file beside its content. `period`: take only the rows of that one (None: take all)."""

    customer_id: str
    connection_id: str
    provider: str
    period: BillingPeriod | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Normalisation:
    """How one set of columns becomes contract rows: SELECTs over `source`, and what the files had.

    `accepted` and `rejected` are of the origin's period where it names one; `unplaced` are rejected rows of no month.
    """

    accepted: str
    rejected: str
    unplaced: str
    columns_present: tuple[str, ...]
    layout: Layout
    version: str


def normalise(schema: pa.Schema, origin: Origin, relation: str = "source") -> Normalisation:
    """The SELECTs over `relation`: the columns of `schema` by position (see sql.column), x_source and x_row_number."""
    names = focus_columns(schema.names)
    layout: Layout = "cur" if cur.is_cur(schema.names) else "focus"
    mapped = cur.map_columns(schema) if layout == "cur" else _map_focus(schema, names)
    version = "cur" if layout == "cur" else _version(schema.names)
    values = {focus.name: _value(focus, mapped.get(focus.name, NULL), origin) for focus in FOCUS_COLUMNS}
    used = set(names.values()) if layout == "focus" else cur.columns_used(schema.names)
    values["x_extra"] = _extra(schema, used)
    values["x_provider"] = _provider(values["ProviderName"], origin.provider)
    for name, constant in (
        ("x_customer_id", origin.customer_id),
        ("x_connection_id", origin.connection_id),
        ("x_focus_version", version),
    ):
        values[name] = Value(literal(constant))
    return Normalisation(
        accepted=_accepted(values, origin.period, relation),
        rejected=_rejected(schema, values, origin, relation, _in_period(origin.period)),
        unplaced=_rejected(schema, values, origin, relation, f"{within_bills(_PERIOD_START)} IS NOT TRUE"),
        columns_present=tuple(focus.name for focus in FOCUS_COLUMNS if focus.name in mapped),
        layout=layout,
        version=version,
    )


def focus_columns(names: Iterable[str]) -> dict[str, str]:
    """FOCUS name -> the file's own name for it: whatever its case, else an alias, of several the first."""
    given = list(names)
    by_lower = {name.strip().lower(): name for name in reversed(given)}
    own = {focus.name: by_lower[focus.name.lower()] for focus in FOCUS_COLUMNS if focus.name.lower() in by_lower}
    aliased = {focus: by_lower[alias] for alias, focus in ALIASES.items() if alias in by_lower}
    return aliased | own


def _map_focus(schema: pa.Schema, names: Mapping[str, str]) -> dict[str, Value]:
    mapped = {}
    for focus in FOCUS_COLUMNS:
        if focus.name in names:
            own = names[focus.name]
            mapped[focus.name] = _read(focus, column(schema, own), schema.field(own).type)
    return mapped


def _read(focus: FocusColumn, given: str, kind: pa.DataType) -> Value:
    if pa.types.is_null(kind):
        return NULL
    if focus.type is Type.MONEY:
        return money(given, kind)
    if focus.type is Type.TIMESTAMP:
        moment = timestamp(given, kind)
        if focus.name.startswith("BillingPeriod") and pa.types.is_string(kind):
            return Value(moment.sql, (*moment.refuse, (_DAY_FIRST.format(given=given, own=OWN), _IS_DAY_FIRST)))
        return moment
    value = text(given, kind)
    if focus.name in _PLACEHOLDER_COLUMNS:
        placeholders = ", ".join(map(literal, PLACEHOLDERS))
        value = Value(f"CASE WHEN {value.sql} NOT IN ({placeholders}) THEN {value.sql} END", value.refuse)
    return value


def _value(focus: FocusColumn, value: Value, origin: Origin) -> Value:
    default = origin.defaults.get(focus.name)
    if default is not None:
        filler = _read(focus, literal(default), pa.string())
        value = filler if value == NULL else Value(f"coalesce({value.sql}, {filler.sql})", value.part().refuse)
    if focus.allowed and value != NULL and focus.name != "ServiceSubcategory":
        value = one_of(value, focus.allowed, strict=focus.name in _STRICT)
    if focus.name in REQUIRED:
        value = required(value)
    if value == NULL:
        return Value(f"CAST(NULL AS {focus.type.duckdb})")
    return value


def _version(names: Iterable[str]) -> str:
    """The newest FOCUS version of whose own columns the file has half: providers add a few before their time."""
    given = {name.strip().lower() for name in names}
    for version in ("1.3", "1.2", "1.1"):
        own = [column.name.lower() in given for column in FOCUS_COLUMNS if column.since == version]
        if 2 * sum(own) >= len(own):
            return version
    return "1.0"


def _provider(provider_name: Value, provider: str) -> Value:
    if provider != "focus":
        return Value(literal(provider))
    name = f"lower(coalesce({provider_name.sql}, 'unknown'))"
    return Value(
        f"CASE WHEN {name} IN ('aws', 'amazon web services') OR {name} LIKE 'amazon web services%' THEN 'aws'"
        f" WHEN {name} LIKE 'microsoft%' OR {name} LIKE '%azure%' THEN 'azure'"
        f" WHEN {name} IN ('gcp', 'google') OR {name} LIKE 'google cloud%' THEN 'gcp' ELSE {name} END"
    )


def _extra(schema: pa.Schema, used: set[str]) -> Value:
    unknown = [name for name in schema.names if name not in used]
    if not unknown:
        return Value("CAST(NULL AS VARCHAR)")
    return Value(f"nullif(CAST(json_merge_patch('{{}}', {_json_object(schema, unknown)}) AS VARCHAR), '{{}}')")


def _json_object(schema: pa.Schema, names: Iterable[str]) -> str:
    """A JSON object of the file's columns `names`; numbers that JSON has no word for, or would round, stand as text."""

    def value(name: str) -> str:
        own, kind = column(schema, name), schema.field(name).type
        if pa.types.is_decimal(kind):
            return f"CAST({own} AS VARCHAR)"
        if pa.types.is_floating(kind):
            return f"CASE WHEN isfinite({own}) THEN to_json({own}) ELSE to_json(CAST({own} AS VARCHAR)) END"
        return own

    return f"json_object({', '.join(f'{literal(name)}, {value(name)}' for name in names)})"


def _accepted(values: Mapping[str, Value], period: BillingPeriod | None, relation: str) -> str:
    columns = ", ".join(f"{_own(name)} AS {identifier(name)}" for name in values)
    return (
        f"SELECT {columns}, {SOURCE}, {ROW_NUMBER} FROM {_judged(values, relation)}"
        f" WHERE x_reason IS NULL AND {_in_period(period)}"
    )


def _rejected(schema: pa.Schema, values: Mapping[str, Value], origin: Origin, relation: str, where: str) -> str:
    return (
        f"SELECT {literal(origin.customer_id)} AS customer_id, {literal(origin.connection_id)} AS connection_id,"
        f" {SOURCE} AS source, {ROW_NUMBER} AS row_number, x_reason AS reason,"
        f" CAST({_json_object(schema, schema.names)} AS VARCHAR) AS payload"
        f" FROM {_judged(values, relation)} WHERE x_reason IS NOT NULL AND {where}"
    )


def _judged(values: Mapping[str, Value], relation: str) -> str:
    """The relation with each value computed once, and x_reason: the first thing wrong with a row, or null.

    Two levels, so that conditions look at computed values; engines must not push x_reason below them again.
    """
    computed = ", ".join(f"{value.sql} AS {_own(name)}" for name, value in values.items())
    branches = " ".join(
        f"WHEN {condition.replace(OWN, _own(name))} THEN {literal(f'{name}: {what}')}"
        for name, value in values.items()
        for condition, what in value.refuse
    )
    return f"(SELECT *, CASE {branches} END AS x_reason FROM (SELECT *, {computed} FROM {relation}))"


def _own(name: str) -> str:
    return identifier(f"={name}")


def _in_period(period: BillingPeriod | None) -> str:
    if period is None:
        return "true"
    start, end = f"TIMESTAMP '{period.start:%Y-%m-%d}'", f"TIMESTAMP '{period.end:%Y-%m-%d}'"
    return f"({_PERIOD_START} >= {start} AND {_PERIOD_START} < {end})"


_PERIOD_START = _own("BillingPeriodStart")


_YEAR, _MONTH = r"(2[01]\d\d)", r"(0[1-9]|1[0-2])"  # the years that bills are of, as in sql.within_bills


def period_of_path(path: str) -> str | None:
    """The billing period 'YYYY-MM' that a path names: BILLING_PERIOD=2026-10, 20261001-20261031 or /2026-10/."""
    found = (
        re.search(rf"(?:BILLING_PERIOD|billing_period)={_YEAR}-{_MONTH}(?:/|$)", path)
        or re.search(rf"(?:^|/){_YEAR}{_MONTH}01-\d{{8}}(?:/|$)", path)
        or re.search(rf"(?:^|/){_YEAR}-{_MONTH}(?:/|$)", path)
    )
    return "-".join(found.groups()) if found else None
