"""dbt as a command, against a warehouse that a test filled: the way Dagster runs it, in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "dbt_project"


@dataclass(frozen=True)
class Dbt:
    """The dbt project with the `environment` that names its target; `folder` takes what dbt writes."""

    environment: Mapping[str, str]
    folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command; its standard output says what it does, line by line."""
        command = [sys.executable, "-m", "dbt.cli.main", "--no-use-colors", *arguments]
        return subprocess.Popen(
            command, env=self._variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *arguments: str) -> str:
        """Run a command and return what it said; AssertionError, with its last words, where it failed."""
        code, said = self.attempt(*arguments)
        assert code == 0, said[-3000:]
        return said

    def attempt(self, *arguments: str) -> tuple[int, str]:
        """Run a command that may fail: its exit code and what it said."""
        process = self.start(*arguments)
        said, _ = process.communicate()
        return process.returncode, said

    def test_results(self) -> dict[str, str]:
        """Name of each test that the last command ran -> pass, warn or fail."""
        found = json.loads((self.folder / "target" / "run_results.json").read_text())["results"]
        ids = ((each["unique_id"].split("."), each["status"]) for each in found)
        return {id[2]: status for id, status in ids if id[0] == "test"}

    def _variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPTIINFRA_", "DBT_"))}
        own = {
            "DBT_PROJECT_DIR": str(PROJECT),
            "DBT_PROFILES_DIR": str(PROJECT),
            "DBT_TARGET_PATH": str(self.folder / "target"),
            "DBT_LOG_PATH": str(self.folder / "logs"),
        }
        return inherited | own | dict(self.environment)
