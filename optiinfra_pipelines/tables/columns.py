"""Columns by what they hold, the short way to write those of a contract: what is not said to be null never is, but
figures. FOCUS columns are written out in `focus.py`."""

from optiinfra_pipelines.tables.contract import Column, Type


def label(name: str, description: str, *, nullable: bool = False, allowed: tuple[str, ...] = ()) -> Column:
    """A string of few distinct values."""
    return Column(name, Type.STRING, description, nullable, allowed=allowed, low_cardinality=True)


def text(name: str, description: str, *, nullable: bool = False) -> Column:
    """Any other string: an id, a sentence, a body."""
    return Column(name, Type.STRING, description, nullable)


def json(name: str, description: str, *, nullable: bool = False) -> Column:
    """A JSON text."""
    return Column(name, Type.JSON, description, nullable)


def money(name: str, description: str, unit: str | None = None, *, nullable: bool = False) -> Column:
    """An exact decimal."""
    return Column(name, Type.MONEY, description, nullable, unit)


def count(name: str, description: str, unit: str | None = None, *, nullable: bool = False) -> Column:
    """A whole number."""
    return Column(name, Type.INTEGER, description, nullable, unit)


def figure(name: str, description: str, unit: str | None = None, *, nullable: bool = True) -> Column:
    """A measured number, null where nothing was measured."""
    return Column(name, Type.FLOAT, description, nullable, unit)


def flag(name: str, description: str, *, nullable: bool = False) -> Column:
    """True or false."""
    return Column(name, Type.BOOLEAN, description, nullable)


def time(name: str, description: str, *, nullable: bool = False) -> Column:
    """A moment in UTC."""
    return Column(name, Type.TIMESTAMP, description, nullable, "UTC")
