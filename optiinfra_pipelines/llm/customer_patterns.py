"""Customers' own regular expressions for redaction: which are accepted, and how they are kept from taking forever.

Python's `re` has no limit of time. So what may take exponential time is refused when settings are read, and each
expression sees a text in pieces, which bounds what is left.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from re import _constants, _parser  # type: ignore[attr-defined]  # the parser of `re`; nothing public tells structure
from typing import Any

PIECE = 500  # characters that an expression sees at once; two open repeats on them take 0.1 s at the very worst
_MANY = 10  # repeats beyond which what is inside must have one length
_OPEN = 64  # repeats beyond which one counts as open
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)


def checked(patterns: Mapping[str, str], taken: Collection[str]) -> dict[str, re.Pattern[str]]:
    """Placeholder's name -> compiled expression; ValueError, which names the pattern, for one that cannot be used."""
    compiled: dict[str, re.Pattern[str]] = {}
    for name, expression in patterns.items():
        kind = name.upper()
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,39}", kind):
            raise ValueError(f"redaction pattern {name!r}: a name is up to 40 letters, digits and _, a letter first")
        if kind in taken or kind in compiled:
            raise ValueError(f"redaction pattern {name!r}: the placeholder [{kind}_1] is taken; choose another name")
        try:
            compiled[kind] = re.compile(expression)
            opened = _open_repeats(_parser.parse(expression))
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"redaction pattern {name!r} is no regular expression of Python: {error}") from error
        except _Nested as error:
            raise ValueError(
                f"redaction pattern {name!r} repeats what itself varies in length, which can take forever; "
                "write (?>...) or *+ and ++ for parts that need no second try"
            ) from error
        if opened > 2:
            raise ValueError(f"redaction pattern {name!r} has {opened} open repeats; two are allowed, write {{0,20}}")
    return compiled


class _Nested(Exception):
    pass


def _open_repeats(parsed: Any) -> int:
    """How many repeats may take over 64; _Nested where one repeats what varies."""
    count = 0
    for operation, argument in parsed:
        if operation in _REPEATS:
            most, inside = argument[1], argument[2]
            low, high = inside.getwidth()
            branches = any(each is _constants.BRANCH for each, _ in _walk(inside))
            if most > _MANY and (low != high or branches):
                raise _Nested
            count += most > _OPEN
    return count + sum(
        _open_repeats(inside)
        for _, argument in parsed
        for inside in _parts(argument)
        if isinstance(inside, _parser.SubPattern)
    )


def _walk(parsed: Any) -> Iterator[tuple[Any, Any]]:
    for operation, argument in parsed:
        yield operation, argument
        for inside in _parts(argument):
            yield from _walk(inside)


def _parts(argument: Any) -> Iterator[Any]:
    """The expressions inside an operation's argument, however deep tuples and lists of it hold them."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _parts(each)


def matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where the expression matches; a match does not cross pieces, which end at a line or a word where they can."""
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            end = max(text.rfind("\n", start, end), text.rfind(" ", start, end)) + 1 or end
        for match in pattern.finditer(text, start, end):
            yield match.span()
        start = max(end, start + 1)
