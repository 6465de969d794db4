"""The exception that this project's collectors and readers of configuration raise. Warehouse errors live with the
warehouse protocol."""

from typing import Literal

ErrorKind = Literal["auth", "throttled", "transient", "malformed", "not_configured", "budget", "conflict"]


class CollectionError(Exception):
    """Something could not be collected, read or sent. The message says what happened, to what, and what to do next.

    `kind` is what a caller decides by and what `raw.collection_runs.error_kind` records: `auth` (who we are was
    refused), `throttled` (asked too often), `transient` (the same call may succeed later), `malformed` (the answer is
    not what the contract says), `not_configured` (a person has to set something), `budget` (the day's money for paid
    calls is spent), `conflict` (another load of the same slice was faster).
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind: ErrorKind = kind

    def __str__(self) -> str:
        return str(self.args[1])
