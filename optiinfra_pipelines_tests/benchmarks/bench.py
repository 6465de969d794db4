"""What the benchmarks of one run share: sizes, bills written once, work done once, and the progress shown."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, cast

from optiinfra_pipelines_tests.benchmarks.bill import write_bill
from optiinfra_pipelines_tests.benchmarks.child import run_apart

T = TypeVar("T")


@dataclass
class Bench:
    """One run: `rows` of the Parquet bill, a `folder` for all it writes, `rounds` of product and baseline each."""

    rows: int
    folder: Path
    rounds: int = 3
    _begun: float = field(default_factory=monotonic)
    _done: dict[str, Any] = field(default_factory=dict)

    def share(self, parts: int) -> int:
        """One of so many `parts` of the rows: for what takes too long on all of them."""
        return max(self.rows // parts, 1)

    def say(self, text: str) -> None:
        """Show progress on standard error, with the seconds since the run began."""
        print(f"[{monotonic() - self._begun:4.0f} s] {text}", file=sys.stderr, flush=True)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives, made the first time that `key` is asked for."""
        if key not in self._done:
            self._done[key] = make()
        return cast(T, self._done[key])

    def bill(self, rows: int, extension: str = "parquet") -> str:
        """The folder with the files of a bill."""
        folder = self.folder / f"bill-{rows}-{extension}"

        def write() -> str:
            self.say(f"writing a bill of {rows:,} rows as {extension}")
            run_apart(write_bill, str(folder), rows, extension)
            return str(folder)

        return self.once(f"bill {rows} {extension}", write)
