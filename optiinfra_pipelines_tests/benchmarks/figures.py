"""What a benchmark is and what it finds: pairs of product and baseline, JSON lines, the table for people."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from optiinfra_pipelines_tests.benchmarks.bench import Bench


@dataclass(frozen=True)
class Pair:
    """The product's value and the baseline's, measured one right after the other; None where there is no baseline."""

    value: float
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.baseline if self.baseline else None


@dataclass(frozen=True)
class Benchmark:
    """A named measurement. `baseline` and `wanted` are words for the table; `run` measures."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    baseline: str | None
    wanted: str
    run: Callable[[Bench], Pair]


@dataclass(frozen=True)
class Figure:
    """What a benchmark found."""

    benchmark: Benchmark
    pair: Pair

    def json_line(self) -> str:
        """The figure as one JSON object on one line."""
        return json.dumps(
            {
                "name": self.benchmark.name,
                "value": self.pair.value,
                "unit": self.benchmark.unit,
                "better": self.benchmark.better,
                "baseline": self.benchmark.baseline,
                "baseline_value": self.pair.baseline,
                "ratio": self.pair.ratio,
            }
        )

    def cells(self) -> tuple[str, ...]:
        """The figure as cells of the table."""
        return (
            self.benchmark.name,
            number(self.pair.value),
            self.benchmark.unit,
            number(self.pair.baseline),
            number(self.pair.ratio),
            self.benchmark.wanted,
            self.benchmark.baseline or "",
        )


def typical(pairs: Sequence[Pair]) -> Pair:
    """The pair whose ratio (without baselines: whose value) is the median; of an even number the lower one."""
    return sorted(pairs, key=lambda pair: pair.ratio or pair.value)[(len(pairs) - 1) // 2]


def number(value: float | None) -> str:
    """A number to three significant digits or whole thousands; nothing for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    """The figures for people, one line each under a heading."""
    rows = [("benchmark", "value", "unit", "baseline", "ratio", "wanted", "baseline is"), *(f.cells() for f in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = "<><>><<"
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
        for row in rows
    )
