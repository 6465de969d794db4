"""`python -m optiinfra_pipelines.defs.quality.calibrate FILE`: how often the judge of the settings errs, measured on
answers that people labelled (HaluEval's and RAGTruth's files).

Prints the figures, writes them to quality.judge_calibrations, and shows them in the UI where DAGSTER_HOME is set. Costs
what so many calls cost, within LLM_BUDGET_USD_PER_RUN and _PER_DAY. Ends 0 where something was measured.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as Grid

from optiinfra_pipelines.customers import load_customers
from optiinfra_pipelines.defs.rendering import as_table
from optiinfra_pipelines.defs.warehouse_resource import WarehouseResource
from optiinfra_pipelines.errors import CollectionError
from optiinfra_pipelines.settings import load_settings
from optiinfra_pipelines.warehouse.protocol import WarehouseError

if TYPE_CHECKING:
    from optiinfra_pipelines.llm.calibration import Calibration, Figure
    from optiinfra_pipelines.llm.labelled import BadLine

_BAD_LINES_NAMED = 20


def main(arguments: list[str] | None = None) -> int:
    """Calibrate the judge on a file; 0 where something was measured."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        made = _calibrate(options, console)
    except (CollectionError, WarehouseError) as error:
        console.print(f"[red]not calibrated:[/red] {error}", highlight=False)
        return 1
    if made.stopped:
        console.print(
            f"[yellow]stopped after {made.judged} of {made.items} answers:[/yellow] {made.stopped}", highlight=False
        )
    _print(made, Console())
    if not made.figures:
        console.print("[red]not calibrated:[/red] nothing was judged")
        return 1
    if os.environ.get("DAGSTER_HOME"):
        _report(made)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.defs.quality.calibrate", description=__doc__)
    parser.add_argument(
        "file", type=Path, help="JSON lines; RAGTruth's response.jsonl with source_info.jsonl beside it"
    )
    parser.add_argument("--limit", type=_count, help="answers at most, as many of each label while there are enough")
    parser.add_argument("--repeat", type=_share, default=0.2, help="share that is asked again, in two ways (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other answers (0)")
    parser.add_argument("--minutes", type=float, default=60.0, help="for which the judge is asked at most (60)")
    parser.add_argument("--dataset", help="its name in the warehouse; the file's own without it")
    parser.add_argument("--customer", help="calibrate the judge of the customer with this id: with its own patterns")
    return parser


def _calibrate(options: argparse.Namespace, console: Console) -> "Calibration":
    from optiinfra_pipelines.llm.calibration import calibrate, chosen
    from optiinfra_pipelines.llm.labelled import read_labelled
    from optiinfra_pipelines.llm.redaction import open_redactor

    settings = load_settings()
    patterns = load_customers(settings.customers).customer(options.customer).redact if options.customer else {}
    found = read_labelled(options.file)
    _name_bad_lines(found.bad, console)
    items = chosen(found.items, options.limit, options.seed)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("asking the judge", total=None)
        return calibrate(
            WarehouseResource().open(),
            settings,
            items,
            dataset=options.dataset or options.file.name,
            redactor=open_redactor(settings, patterns),
            repeat=options.repeat,
            seconds=60 * options.minutes,
            progress=lambda done, wanted: progress.update(task, completed=done, total=wanted),
        )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError("a share from 0 to 1")
    return share


def _name_bad_lines(bad: "Sequence[BadLine]", console: Console) -> None:
    if not bad:
        return
    console.print(f"[yellow]{len(bad)} lines are left out:[/yellow]", highlight=False)
    for each in bad[:_BAD_LINES_NAMED]:
        console.print(f"  {each}", highlight=False, markup=False)
    if len(bad) > _BAD_LINES_NAMED:
        console.print(f"  and {len(bad) - _BAD_LINES_NAMED} more")


def _print(made: "Calibration", console: Console) -> None:
    grid = Grid(title=f"{made.judge_model} ({made.judge_fingerprint}) on {made.dataset}", title_justify="left")
    for name in ("metric", "figure", "value", "95 % interval", "n"):
        grid.add_column(name, justify="left" if name in ("metric", "figure") else "right")
    for each in made.figures:
        grid.add_row(each.metric_type, each.figure, _value(each), _interval(each), str(each.n))
    console.print(grid)
    console.print(
        f"{made.judged} of {made.items} answers judged; {made.requests} requests cost {made.cost:.6f} USD",
        highlight=False,
    )


def _value(figure: "Figure") -> str:
    return f"{figure.value:.4f} USD" if figure.figure.startswith("price") else f"{figure.value:.1%}"


def _interval(figure: "Figure") -> str:
    return "" if figure.lower is None else f"{figure.lower:.1%} to {figure.upper:.1%}"


def _report(made: "Calibration") -> None:
    """Show the figures at their asset in the UI, as a materialization that belongs to no run."""
    rows = [
        {
            "metric": each.metric_type,
            "figure": each.figure,
            "value": _value(each),
            "interval": _interval(each),
            "n": each.n,
        }
        for each in made.figures
    ]
    shown = {f"{each.metric_type}_{each.figure}": each.value for each in made.figures}
    event = dg.AssetMaterialization(
        ["quality", "judge_calibrations"],
        description=made.stopped or None,
        metadata={
            **shown,
            "figures": as_table(rows),
            "judge": f"{made.judge_model} {made.judge_fingerprint}",
            "dataset": made.dataset,
            "answers": made.items,
            "judged": made.judged,
            "cost_usd": float(made.cost),
        },
    )
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(event)


if __name__ == "__main__":
    sys.exit(main())
