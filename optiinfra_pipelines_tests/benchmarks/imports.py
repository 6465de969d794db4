"""What importing a code location costs: CPU seconds of the import alone, in a fresh interpreter.

Every run and every step of a multiprocess executor pays it. `import dagster` is what no location can do without.
"""

import json
import subprocess
import sys

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair, typical

_IMPORT = "import time; began = time.process_time(); import {module}; print(time.process_time() - began)"


def cpu_seconds(module: str) -> float:
    """CPU seconds of `import module`, from a fresh interpreter's first line to its last."""
    command = [sys.executable, "-c", _IMPORT.format(module=module)]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True)
    return float(json.loads(said.stdout.splitlines()[-1]))


def _beside_dagster(bench: Bench, module: str) -> Pair:
    bench.say(f"importing {module}")
    cpu_seconds(module)  # compiles what was never imported
    return typical([Pair(cpu_seconds(module), cpu_seconds("dagster")) for _ in range(bench.rounds)])


def _location(name: str, module: str, wanted: str, note: str = "") -> Benchmark:
    return Benchmark(
        name, "CPU s", "lower", f"import dagster{note}", wanted, lambda bench: _beside_dagster(bench, module)
    )


IMPORTS = (
    _location("code_location_import", "optiinfra_pipelines.definitions", "<= 3"),
    _location(
        "marts_location_import", "optiinfra_pipelines.marts_definitions", "", "; this one pays for dagster-dbt as well"
    ),
)
