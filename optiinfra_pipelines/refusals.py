"""How values and keys of customers.yaml are refused: nothing that may be a secret is shown, and a hint is given."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

_ENV_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_AWS_KEY_ID = re.compile(r"A[A-Z]{3}[A-Z0-9]{16}")  # an access key id is written like an environment variable


def variable_name(value: str) -> str:
    """The name of an environment variable as it stands; ValueError, which does not show it, for anything else."""
    if not _ENV_NAME.fullmatch(value) or _AWS_KEY_ID.fullmatch(value):
        raise ValueError(
            "must be the NAME of an environment variable (capitals, digits, _), never the value itself; "
            "what stands here is not shown, for it may be a secret"
        )
    return value


def refuse_keys(keys: Sequence[str], allowed: Sequence[str], reason: str) -> None:
    """Raise one ValidationError with a mistake at each of `keys`, which pydantic joins to those of the whole file."""
    mistakes = [
        InitErrorDetails(
            type=PydanticCustomError("refused_key", _brace_free(f"{reason}{hint(key, allowed)}")),
            loc=(key,),
            input=None,
        )
        for key in keys
    ]
    if mistakes:
        raise ValidationError.from_exception_data("keys", mistakes, hide_input=True)


def _brace_free(message: str) -> Any:
    return message.replace("{", "(").replace("}", ")")  # pydantic reads braces in a message as places to fill


def hint(word: str, known: Sequence[str]) -> str:
    """What somebody who wrote `word` may have meant, to stand behind a reason."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(known)}" if 0 < len(known) <= 8 else ""
