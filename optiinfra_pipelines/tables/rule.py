"""The words a rule about a table's rows is written in: expressions over columns, and Rule. No SQL, no engine, no file.

Null is unknown, as in SQL: a requirement is broken only where it is false, a condition holds only where it is true.
Two words look at null itself: `Is(column, None)`, and `IsNot(column, value)`, which holds of null (null is not "x").
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Literal

Scalar = str | int | Decimal | bool | None
Keyword = Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED", "MAY"]
Kind = Literal["string", "decimal", "datetime"]
Format = Literal[
    "string",  # no U+FFFD: what a decoder leaves of text that was not Unicode
    "filled",  # neither blank nor a placeholder for null
    "numeric",
    "datetime",
    "unit",
    "currency",  # ISO 4217's form for a national currency, any name for a virtual one
    "national_currency",  # a code of ISO 4217
    "key_value",  # a JSON object of scalars with unique keys
    "sku_keys",  # keys of SkuPriceDetails: defined by FOCUS, or prefixed with x_
    "sku_types",  # properties defined by FOCUS hold the type that FOCUS defines
    "sku_case",  # keys in PascalCase after any x_
]


@dataclass(frozen=True)
class And:
    items: tuple["Expr", ...]


@dataclass(frozen=True)
class Or:
    items: tuple["Expr", ...]


@dataclass(frozen=True)
class Implies:
    """The requirement, on rows where the condition holds; true of every other row."""

    condition: "Expr"
    requirement: "Expr"


@dataclass(frozen=True)
class Present:
    """The source delivered the column; not a statement about rows."""

    column: str


@dataclass(frozen=True)
class Is:
    column: str
    value: Scalar


@dataclass(frozen=True)
class IsNot:
    column: str
    value: Scalar


@dataclass(frozen=True)
class OneOf:
    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class AtLeast:
    column: str
    value: Scalar


@dataclass(frozen=True)
class Same:
    left: str
    right: str


@dataclass(frozen=True)
class NotSame:
    left: str
    right: str


@dataclass(frozen=True)
class Before:
    """Strictly earlier."""

    earlier: str
    later: str


@dataclass(frozen=True)
class Product:
    """left x right = result, up to the rounding of printed digits."""

    left: str
    right: str
    result: str


@dataclass(frozen=True)
class HasType:
    """The table contract gives the column this type."""

    column: str
    kind: Kind


@dataclass(frozen=True)
class HasFormat:
    column: str
    format: Format


@dataclass(frozen=True)
class DistinctCount:
    """Each value of `per` goes with exactly `count` values of `column`. A statement about groups of rows."""

    per: str
    column: str
    count: int


@dataclass(frozen=True)
class SumsEqual:
    """For each value of `per`, the sum of `left` where `left_when` equals that of `right` where `right_when`.

    `span`, a start and an end column: only groups whose two sides begin and end together are judged; others are
    still running, or began before the data.
    """

    per: str
    left: str
    left_when: "Expr"
    right: str
    right_when: "Expr"
    span: tuple[str, str] | None = None


@dataclass(frozen=True)
class RuleHolds:
    rule_id: str


@dataclass(frozen=True)
class Undecidable:
    """What cannot be decided here, and why."""

    reason: str


Expr = (
    And
    | Or
    | Implies
    | Present
    | Is
    | IsNot
    | OneOf
    | AtLeast
    | Same
    | NotSame
    | Before
    | Product
    | HasType
    | HasFormat
    | DistinctCount
    | SumsEqual
    | RuleHolds
    | Undecidable
)

_COLUMN_FIELDS = frozenset({"column", "left", "right", "earlier", "later", "result", "per", "span"})


@dataclass(frozen=True)
class Rule:
    """One statement about a table. `criteria` are what a provider has to support for it to apply (all of them).

    `note` warns where the statement as written contradicts the specification that it is meant to express.
    """

    id: str
    column: str
    keyword: Keyword
    text: str
    requirement: Expr
    condition: Expr | None = None
    criteria: tuple[str, ...] = ()
    origin: str = "contract"
    note: str = ""

    @property
    def children(self) -> tuple[str, ...]:
        """Rules that this one consists of: it holds when they all hold. Empty: it is judged on rows itself."""
        items = self.requirement.items if isinstance(self.requirement, And) else (self.requirement,)
        ids = tuple(item.rule_id for item in items if isinstance(item, RuleHolds))
        return ids if len(ids) == len(items) else ()


def parts(expr: Expr) -> Iterator[Expr]:
    """The expression and every expression inside it, outermost first."""
    yield expr
    for field in fields(expr):
        value = getattr(expr, field.name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Expr):
                yield from parts(inner)


def columns_of(expr: Expr) -> tuple[str, ...]:
    """Columns that the expression reads, each once, in order of appearance."""
    found: dict[str, None] = {}
    for part in parts(expr):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name in _COLUMN_FIELDS and value is not None:
                found.update(dict.fromkeys(value if isinstance(value, tuple) else (value,)))
    return tuple(found)


def references(expr: Expr) -> tuple[str, ...]:
    """Ids of the rules that the expression refers to."""
    return tuple(part.rule_id for part in parts(expr) if isinstance(part, RuleHolds))
