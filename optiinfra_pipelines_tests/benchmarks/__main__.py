"""The command behind `make bench`: a JSON object a line on standard output, progress and a table on standard error."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import TaskFailed
from optiinfra_pipelines_tests.benchmarks.figures import Figure, table
from optiinfra_pipelines_tests.benchmarks.gate import GATE
from optiinfra_pipelines_tests.benchmarks.imports import IMPORTS
from optiinfra_pipelines_tests.benchmarks.judging import JUDGING
from optiinfra_pipelines_tests.benchmarks.load import LOADS, MEMORY
from optiinfra_pipelines_tests.benchmarks.marts import MARTS
from optiinfra_pipelines_tests.benchmarks.parsing import PARSING
from optiinfra_pipelines_tests.benchmarks.privacy import PRIVACY
from optiinfra_pipelines_tests.benchmarks.rivals import RIVALS
from optiinfra_pipelines_tests.benchmarks.tick import TICKS

BENCHMARKS = LOADS + MEMORY + RIVALS + MARTS + TICKS + PARSING + IMPORTS + PRIVACY + JUDGING + GATE


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmarks chosen; exit with 1 where one failed, after the others ran."""
    parser = argparse.ArgumentParser(
        prog="python -m optiinfra_pipelines_tests.benchmarks",
        description="Measures the product beside its baselines, by turns, each in a process of its own. All of it takes"
        " about half an hour and, in the folder of temporary files, 10 GB.",
        epilog="Benchmarks: " + ", ".join(benchmark.name for benchmark in BENCHMARKS),
    )
    parser.add_argument("--only", default="", metavar="PREFIX", help="only benchmarks whose name begins with this")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the bill that is loaded (5,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of product and baseline; the median counts (3)")
    options = parser.parse_args(arguments)
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.name.startswith(options.only)]
    if not chosen or options.rows < 1 or options.rounds < 1:
        parser.error(f"no benchmark begins with {options.only!r}" if not chosen else "--rows and --rounds begin at 1")
    figures, failures = [], []
    with TemporaryDirectory(prefix="optiinfra-benchmarks-") as folder:
        bench = Bench(options.rows, Path(folder), options.rounds)
        for benchmark in chosen:
            bench.say(benchmark.name)
            try:
                figures.append(Figure(benchmark, benchmark.run(bench)))
            except TaskFailed as error:
                failures.append(f"{benchmark.name} failed: {error}")
                continue
            print(figures[-1].json_line(), flush=True)
    print("", table(figures), *failures, sep="\n", file=sys.stderr)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
