"""Tasks run each in a fresh process: nothing that one of them warmed, cached or allocated helps or burdens the next.

A task is a module-level function of plain values that returns a dictionary of numbers. What it prints is shown only
when it fails.
"""

import importlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAST_WORDS = 3000  # characters of a failed task's output that its error shows


class TaskFailed(Exception):
    """A task ended without a result; the message carries the end of what it printed."""


@dataclass(frozen=True)
class Outcome:
    """What a task returned, and the most memory that its process held at once, in MB of 1,000,000 bytes."""

    numbers: Mapping[str, float]
    peak_mb: float


def run_apart(task: Callable[..., Mapping[str, float]], *arguments: str | int) -> Outcome:
    """Run `task(*arguments)` in a process of its own; TaskFailed where it fails."""
    with tempfile.TemporaryDirectory(prefix="optiinfra-task-") as folder:
        answer, said = Path(folder) / "answer.json", Path(folder) / "said.txt"
        name = f"{task.__module__}:{task.__qualname__}"
        command = [sys.executable, "-m", __name__, str(answer), name, json.dumps(arguments)]
        with said.open("w") as output:
            ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        if ended.returncode:
            raise TaskFailed(f"{name}{arguments} ended with {ended.returncode}:\n{said.read_text()[-LAST_WORDS:]}")
        return Outcome(**json.loads(answer.read_text()))


def main(answer: str, name: str, arguments: str) -> None:
    """Run one task and write its outcome to the file `answer`."""
    module, function = name.split(":")
    task: Any = getattr(importlib.import_module(module), function)
    numbers = task(*json.loads(arguments))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    Path(answer).write_text(json.dumps({"numbers": numbers, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main(*sys.argv[1:])
