"""The gate's error rates and the monitor's delays, measured on simulated scores with fixed seeds.

Each figure stands beside the naive rule, "the mean is 5 points under the baseline's", and where it is a test beside
Welch's at 5 %. Bulk figures call the functions behind `judge_gate` and `Monitor` on many rows at once; tests hold the
two together. Tables of everything measured go to standard error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optiinfra_pipelines_tests.benchmarks.bench import Bench
from optiinfra_pipelines_tests.benchmarks.child import run_apart
from optiinfra_pipelines_tests.benchmarks.figures import Benchmark, Pair
from optiinfra_pipelines_tests.benchmarks.gate_streams import (
    FIVE_LEVELS,
    KINDS,
    PASS_FAIL,
    TURNS,
    WINDOWS,
    Floats,
    Kind,
    hourly,
)
from optiinfra_pipelines_tests.benchmarks.gate_tick import tick
from optiinfra_pipelines_tests.benchmarks.warehouses import empty_warehouse

if TYPE_CHECKING:
    from optiinfra_pipelines.quality.baseline import Baseline

MARGIN, LOOKS, BASELINE, SEED = 0.05, 96, 2_000, 5
SIZES, DROPS = (20, 30, 50, 100, 200, 400), (0.0, 0.05, 0.12)
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Effort:
    """How much is simulated: monitored streams, replicates of a single look and of a day of looks, applications."""

    streams: int
    replicates: int
    days: int
    applications: int


FULL, QUICK = Effort(600, 20_000, 4_000, 1_000), Effort(40, 1_000, 160, 50)


@dataclass(frozen=True)
class Looked:
    """What three rules say of each row: the gate's REJECT and APPROVE, "5 points lower", and Welch's test at 5 %."""

    rejected: Flags
    approved: Flags
    naive: Flags
    welch: Flags
    p_value: Floats

    def shares(self) -> str:
        every = self.rejected, self.approved, self.naive, self.welch
        return " ".join(f"{100 * each.mean():8.2f}" for each in every)


def effort(bench: Bench) -> Effort:
    """Quick on the few rows with which tests run the benchmarks."""
    return FULL if bench.rows >= 1_000_000 else QUICK


def looked(kind: Kind, sums: Floats, weights: Floats, mean: Floats, variance: Floats, n: int) -> Looked:
    """Judge rows of sessions, sums of weight x score and weights, against baselines of these means and variances."""
    from optiinfra_pipelines.quality.evidence import Units, assess
    from optiinfra_pipelines.quality.policy import METRICS, Policy

    policy, metric = Policy(), METRICS["quality"]
    high, low = metric.high, metric.low
    found = assess(
        Units(mean[:, None] * weights - sums, weights, mean - high, mean - low),
        variance,
        np.full(len(mean), metric.margin),
        policy.alpha_reject,
        policy.alpha_approve,
    )
    enough = weights.shape[1] >= policy.sessions_min
    stuck = np.ptp(sums / weights, axis=1) == 0
    naive = found.estimate >= MARGIN
    plain = (sums - mean[:, None] * weights).var(axis=1, ddof=1) / weights.shape[1] / weights.mean(axis=1) ** 2
    welch = found.estimate > 1.645 * np.sqrt(np.maximum(plain + variance, 1e-12))
    rejected = naive & (found.p_value <= policy.alpha_reject) & enough & (n >= policy.reject_min)
    approved = (found.upper < MARGIN) & enough & (n >= policy.approve_min) & ~stuck & ~rejected
    return Looked(rejected, approved, naive, welch, found.p_value)


def baselines(rng: np.random.Generator, kind: Kind, rows: int, size: int = BASELINE) -> tuple[Floats, Floats]:
    """Means of baselines of independent scores, and the variances of these means."""
    counts = rng.multinomial(size, kind.chances, rows)
    mean = counts @ kind.levels / size
    return mean, (counts @ kind.levels**2 / size - mean**2) / (size - 1)


def independent(rng: np.random.Generator, kind: Kind, n: int, drop: float, rows: int, size: int = BASELINE) -> Looked:
    """One look at n independent scores."""
    scores = kind.worse(drop).draw(rng, (rows, n))
    return looked(kind, scores, np.ones_like(scores), *baselines(rng, kind, rows, size), n)


def conversations(rng: np.random.Generator, kind: Kind, n: int, drop: float, rows: int) -> Looked:
    """One look at n scores of conversations; the naive rule and Welch take them for independent."""
    count = max(n // TURNS, 2)
    frozen = kind.conversations(rng, rows, BASELINE // TURNS).mean(axis=2)
    mean, variance = frozen.mean(axis=1), frozen.var(axis=1, ddof=1) / frozen.shape[1]
    scores = kind.worse(drop).conversations(rng, rows, count)
    sums = scores.sum(axis=2)
    apart = looked(kind, scores.reshape(rows, -1), np.ones((rows, count * TURNS)), mean, variance, n)
    whole = looked(kind, sums, np.full_like(sums, TURNS), mean, variance, n)
    return Looked(whole.rejected, whole.approved, apart.naive, apart.welch, whole.p_value)


def stratified(rng: np.random.Generator, kind: Kind, n: int, drop: float, rows: int) -> Looked:
    """One look at n scores, half of them from the harder fifth of the traffic; the others ignore the weights."""
    easy, hard = kind.worse(-0.02), kind.worse(0.08)
    mixed = Kind(kind.name, kind.levels, 0.8 * easy.chances + 0.2 * hard.chances)
    mean, variance = baselines(rng, mixed, rows)
    half = n // 2
    scores = [each.draw(rng, (rows, half)) for each in (kind.worse(drop - 0.02), kind.worse(drop + 0.08))]
    weights = np.repeat([1.6, 0.4], half)[None] * np.ones((rows, 1))
    plain = np.concatenate(scores, axis=1)
    weighed = looked(kind, plain * weights, weights, mean, variance, n)
    ignored = looked(kind, plain, np.ones_like(plain), mean, variance, n)
    return Looked(weighed.rejected, weighed.approved, ignored.naive, ignored.welch, weighed.p_value)


CASES: dict[str, Callable[[np.random.Generator, Kind, int, float, int], Looked]] = {
    "independent": independent,
    "conversations": conversations,
    "stratified": stratified,
}


def single_looks(bench: Bench) -> dict[tuple[str, str, int, float], Looked]:
    """Every case, kind, size and drop; the table of shares is shown once."""

    def measured() -> dict[tuple[str, str, int, float], Looked]:
        found = {}
        bench.say("one look, % of rows:                       REJECT  APPROVE    naive    Welch")
        for case, judge in CASES.items():
            for kind in KINDS:
                for n in SIZES:
                    for drop in DROPS:
                        rng = np.random.default_rng([SEED, n, round(100 * drop)])
                        rows = effort(bench).replicates // (1 if case == "independent" else 4)
                        chunks = [judge(rng, kind, n, drop, part) for part in _parts(rows)]
                        found[case, kind.name, n, drop] = _joined(chunks)
                        label = f"{case} {kind.name} n={n} drop={100 * drop:g}"
                        bench.say(f"{label:40} {found[case, kind.name, n, drop].shares()}")
        return found

    return bench.once("gate single looks", measured)


def a_day_of_looks(kind: Kind, per_look: int, drop: float, rows: int, size: int = BASELINE) -> Looked:
    """Which rows are ever rejected or approved in 96 looks at a growing sample."""
    rng = np.random.default_rng([SEED, per_look, round(100 * drop), size])
    mean, variance = baselines(rng, kind, rows, size)
    scores = kind.worse(drop).draw(rng, (rows, per_look * LOOKS))
    ever = [np.zeros(rows, dtype=bool) for _ in range(4)]
    for look in range(1, LOOKS + 1):
        n = per_look * look
        worse = mean - scores[:, :n].mean(axis=1)
        # the gate's verdict can only be one of the two, and not while the estimate is far from it
        open_rows = np.flatnonzero(
            ~(ever[0] | ever[1]) & ((worse >= MARGIN) | (worse < MARGIN - 2 * np.sqrt(variance)))
        )
        if len(open_rows):
            part = scores[open_rows, :n]
            seen = looked(kind, part, np.ones_like(part), mean[open_rows], variance[open_rows], n)
            ever[0][open_rows] |= seen.rejected
            ever[1][open_rows] |= seen.approved
        ever[2] |= worse >= MARGIN
        ever[3] |= worse > 1.645 * np.sqrt(scores[:, :n].var(axis=1, ddof=1) / n + variance)
    return Looked(*ever, p_value=np.ones(rows))


def days_of_looks(bench: Bench) -> dict[tuple[str, int, float], Looked]:
    """A day of looks for each kind, 5 and 20 scores a look, without a change and with one of the margin."""

    def measured() -> dict[tuple[str, int, float], Looked]:
        found = {}
        bench.say("96 looks, % of deployments ever:           REJECT  APPROVE    naive    Welch")
        for kind in KINDS:
            for per_look in (5, 20):
                for drop in (0.0, MARGIN):
                    rows = effort(bench).days // (1 if per_look == 5 else 2)
                    parts = a_day_of_looks(kind, per_look, drop, rows)
                    found[kind.name, per_look, drop] = parts
                    bench.say(f"{kind.name} {per_look} a look, drop={100 * drop:<10g}{'':14} {parts.shares()}")
        return found

    return bench.once("gate days of looks", measured)


def seven_metrics(kind: Kind, n: int, alike: float, rows: int) -> tuple[float, float]:
    """Shares of deployments without a change that the gate and seven Welch tests reject; metrics correlate `alike`."""
    from optiinfra_pipelines.quality.evidence import holm
    from optiinfra_pipelines.quality.policy import Policy

    rng = np.random.default_rng([SEED, n, round(10 * alike)])
    shared = kind.draw(rng, (rows, n))
    each = []
    for _ in range(7):
        scores = np.where(rng.random((rows, n)) < np.sqrt(alike), shared, kind.draw(rng, (rows, n)))
        each.append(looked(kind, scores, np.ones_like(scores), *baselines(rng, kind, rows), n))
    p_values = np.stack([metric.p_value for metric in each], axis=1)
    rejected = np.stack([metric.rejected for metric in each], axis=1)
    some = np.flatnonzero(rejected.any(axis=1))
    family = Policy().alpha_family
    gate = sum(bool((holm(p_values[row], family) & rejected[row]).any()) for row in some) / rows
    return gate, float(np.stack([metric.welch for metric in each], axis=1).any(axis=1).mean())


def seven(bench: Bench) -> Pair:
    """The worst over kinds, sizes and correlations."""
    worst, welch = 0.0, 0.0
    for kind in KINDS:
        for n in (50, 100, 200):
            for alike in (0.0, 0.5):
                gate, raw = seven_metrics(kind, n, alike, effort(bench).replicates // 4)
                bench.say(f"7 metrics, {kind.name} n={n} rho={alike}: REJECT {gate:.2%}, raw Welch {raw:.1%}")
                worst, welch = max(worst, gate), max(welch, raw)
    return Pair(worst, welch)


@dataclass(frozen=True)
class Streams:
    """Streams with a baseline each: what is needed to run the monitor on all of them at once."""

    kind: Kind
    n: int
    mean: Floats
    weight: Floats  # evidence of one point of mean excess
    height: Floats

    def run(self, means: Iterator[Floats], score: Floats | None = None) -> tuple[Floats, Floats, Floats]:
        """Alarms of each stream, its window of the first (infinite without one) and its CUSUM in the end, from `score`
        or 0; `means` window by window."""
        from optiinfra_pipelines.quality.monitor import advance

        score = np.zeros_like(self.mean) if score is None else score
        alarms, first = np.zeros_like(self.mean), np.full(len(self.mean), np.inf)
        lasting = np.zeros(len(self.mean), dtype=bool)
        for window, observed in enumerate(means, 1):
            score = advance(score, self.weight * (self.mean - observed - MARGIN / 2), self.height)
            lasting &= score > 0
            raised = (score >= self.height) & ~lasting
            lasting |= raised
            alarms += raised
            first = np.where(raised & np.isinf(first), window, first)
        return alarms, first, np.where(lasting, 0.0, score)

    def windows(self, drop: float, count: int) -> Iterator[Floats]:
        rng = np.random.default_rng([SEED, self.n, round(1000 * drop), 1])
        kind = self.kind.worse(drop)
        return (kind.window_means(rng, (len(self.mean),), self.n) for _ in range(count))


def calibrated(frozen: "list[Baseline]", kind: Kind, n: int) -> Streams:
    """Streams of these baselines, with windows of n scores."""
    from optiinfra_pipelines.quality.calibration import scale, threshold
    from optiinfra_pipelines.quality.policy import METRICS, Policy

    metric, per_alarm = METRICS["quality"], Policy().windows_per_false_alarm
    weights = [each.margin / each.variance * n for each in (scale(one, metric) for one in frozen)]
    heights = [threshold(one, metric, n, per_alarm) for one in frozen]
    return Streams(kind, n, np.asarray([one.mean for one in frozen]), np.asarray(weights), np.asarray(heights))


def streams(bench: Bench, kind: Kind, n: int) -> Streams:
    """Streams of a kind, each with a baseline of its own."""
    from optiinfra_pipelines.quality.baseline import freeze
    from optiinfra_pipelines.quality.sample import Sample

    def made() -> Streams:
        rng = np.random.default_rng([SEED, n])
        frozen = [freeze(Sample.of(kind.draw(rng, (BASELINE,)).tolist())) for _ in range(effort(bench).streams)]
        return calibrated(frozen, kind, n)

    return bench.once(f"gate streams {kind.name} {n}", made)


def false_alarms(bench: Bench, n: int) -> Pair:
    """Alarms per stream and 30 days, of the 5-level score; the other kinds are shown."""
    found = {}
    for kind in KINDS:
        each = streams(bench, kind, n)
        alarms, *_ = each.run(each.windows(0.0, WINDOWS))
        naive = sum((each.mean - means >= MARGIN).sum() for means in each.windows(0.0, 200)) / len(alarms) / 200
        found[kind.name] = Pair(float(alarms.mean()), float(naive * WINDOWS))
        error = alarms.std() / len(alarms) ** 0.5
        bench.say(f"{kind.name} n={n}: {alarms.mean():.2f} +- {error:.2f} alarms, naive {naive * WINDOWS:.0f}")
    return found[FIVE_LEVELS.name]


def delay(bench: Bench, kind: Kind, n: int, drop: float) -> Pair:
    """Median windows until the alarm, of the monitor and of the naive rule; the 90 % delay is shown.

    The change comes after two days without one, so that each stream's CUSUM stands where it usually stands.
    """
    each = streams(bench, kind, n)
    *_, usual = each.run(each.windows(0.0, 2 * LOOKS))
    _, first, _ = each.run(each.windows(drop, 600), usual)
    under = np.stack([each.mean - means >= MARGIN for means in each.windows(drop, 60)])
    naive = float(np.median(np.argmax(under, axis=0) + 1))
    late, latest = (float(np.quantile(first, share, method="lower")) for share in (0.5, 0.9))
    bench.say(f"{kind.name} n={n} drop={100 * drop:g}: median {late:g}, 90 % {latest:g} windows; naive {naive:g}")
    return Pair(late, naive)


def delays(bench: Bench, drop: float, wanted: int) -> Pair:
    """The delay for `wanted` scores a window; the first figure that asks shows all kinds, sizes and drops."""

    def shown() -> dict[tuple[int, float], Pair]:
        every = [(kind, n, by) for kind in (FIVE_LEVELS, PASS_FAIL) for n in (5, 20, 50) for by in (0.025, 0.05, 0.12)]
        found = {(kind.name, n, by): delay(bench, kind, n, by) for kind, n, by in every}
        return {(n, by): pair for (name, n, by), pair in found.items() if name == FIVE_LEVELS.name}

    return bench.once("gate delays", shown)[wanted, drop]


def day_and_night(bench: Bench, strata: bool, n: int = 20) -> float:
    """Alarms per stream and 30 days where the mean swings with the hour's traffic and no answer changes."""
    from optiinfra_pipelines.quality.baseline import freeze
    from optiinfra_pipelines.quality.policy import stratum
    from optiinfra_pipelines.quality.sample import Sample

    rng = np.random.default_rng([SEED, 24])
    count, hours = effort(bench).streams // 2, hourly(FIVE_LEVELS)
    labels = [stratum(hour) if strata else "" for hour in range(24)]
    per_hour = [BASELINE // 24 + (hour < BASELINE % 24) for hour in range(24)]
    named = [label for label, size in zip(labels, per_hour, strict=True) for _ in range(size)]
    frozen = [
        freeze(
            Sample.of(np.concatenate([h.draw(rng, (m,)) for h, m in zip(hours, per_hour, strict=True)]), strata=named)
        )
        for _ in range(count)
    ]
    each = calibrated(frozen, FIVE_LEVELS, n)
    gap = np.stack([one.mean - one.expected(np.asarray(labels)) for one in frozen], axis=1)
    # what a window misses of what its hour expects, told from the mean of all
    means = (hours[w // 4 % 24].window_means(rng, (count,), n) + gap[w // 4 % 24] for w in range(WINDOWS))
    alarms, *_ = each.run(means)
    bench.say(f"day and night, {'by hours' if strata else 'one mean'}: {alarms.mean():.2f} alarms")
    return float(alarms.mean())


def thousand_applications(bench: Bench) -> Pair:
    """CPU seconds to judge 1,000 applications by 10 metrics at one tick, from the scores in the warehouse to the rows
    written; of fewer applications, as much as for 1,000."""
    count = effort(bench).applications
    with empty_warehouse("duckdb") as address:
        took = run_apart(tick, address, count).numbers
    bench.say(
        f"{count} applications: {took['cpu']:.2f} s of CPU in {took['seconds']:.2f} s; {took['scores']:,.0f} scores in"
        f" the warehouse, {took['states']:.0f} monitor states and {took['looks']:.0f} verdicts written"
    )
    return Pair(took["cpu"] * FULL.applications / count)


def _parts(rows: int) -> Iterator[int]:
    """Rows in portions that fit into memory."""
    return (min(1_000, rows - first) for first in range(0, rows, 1_000))


def _joined(parts: list[Looked]) -> Looked:
    fields = ("rejected", "approved", "naive", "welch", "p_value")
    return Looked(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def _worst(bench: Bench, case: str | None, drop: float, least: int, mark: str, beside: str) -> Pair:
    """The worst share of a mark over kinds and sizes from `least`, and the worst of the rule beside it."""
    chosen = [
        found
        for (name, _, n, by), found in single_looks(bench).items()
        if by == drop and n >= least and case in (None, name)
    ]
    return Pair(*(max(float(getattr(found, each).mean()) for found in chosen) for each in (mark, beside)))


def _no_change(bench: Bench) -> Pair:
    return _worst(bench, None, 0.0, 0, "rejected", "naive")


def _approves(bench: Bench) -> Pair:
    """Single looks from n = 100 and days of looks; the naive rule approves what it does not reject."""
    single = _worst(bench, None, MARGIN, 100, "approved", "approved").value
    days = [found for (_, _, drop), found in days_of_looks(bench).items() if drop == MARGIN]
    naive = [1 - float(found.naive.mean()) for (_, _, n, by), found in single_looks(bench).items() if by == MARGIN]
    return Pair(max(single, *(float(found.approved.mean()) for found in days)), max(naive))


def _rejects_12(bench: Bench) -> Pair:
    found = single_looks(bench)["independent", FIVE_LEVELS.name, 200, 0.12]
    small = single_looks(bench)["independent", FIVE_LEVELS.name, 100, 0.12]
    bench.say(f"REJECT of 12 points, 5-level: n=100 {small.rejected.mean():.1%}, n=200 {found.rejected.mean():.2%}")
    rng = np.random.default_rng([SEED, 500])
    for n in (100, 200):
        parts = [independent(rng, FIVE_LEVELS, n, 0.12, part, 500) for part in _parts(effort(bench).replicates)]
        bench.say(f"the same with a baseline of 500: n={n} {_joined(parts).rejected.mean():.2%}")
    return Pair(float(found.rejected.mean()), float(found.welch.mean()))


def _looks(bench: Bench) -> Pair:
    days = [found for (_, _, drop), found in days_of_looks(bench).items() if drop == 0]
    return Pair(max(float(d.rejected.mean()) for d in days), max(float(d.naive.mean()) for d in days))


NAIVE, WELCH = "5 points under the baseline", "Welch's test at 5 %"
GATE = (
    *(
        Benchmark(
            f"gate_false_alarms_n{n}",
            "alarms/stream/30 d",
            "lower",
            NAIVE,
            "<= 1.1",
            lambda bench, n=n: false_alarms(bench, n),
        )
        for n in (5, 20, 50)
    ),
    Benchmark("gate_delay_12_points_n20", "windows", "lower", NAIVE, "<= 5", lambda b: delays(b, 0.12, 20)),
    Benchmark("gate_delay_5_points_n20", "windows", "lower", NAIVE, "<= 15", lambda b: delays(b, 0.05, 20)),
    Benchmark("gate_reject_no_change", "share", "lower", NAIVE, "<= 0.01", _no_change),
    Benchmark("gate_approve_5_points", "share", "lower", NAIVE, "<= 0.025", _approves),
    Benchmark("gate_reject_12_points_n200", "share", "higher", WELCH, ">= 0.99", _rejects_12),
    Benchmark("gate_96_looks", "share", "lower", NAIVE, "<= 0.01", _looks),
    Benchmark("gate_7_metrics", "share", "lower", f"{WELCH} each", "<= 0.05", seven),
    Benchmark(
        "gate_sessions",
        "share",
        "lower",
        f"{WELCH}, scores as if independent",
        "<= 0.05",
        lambda b: _worst(b, "conversations", 0.0, 0, "rejected", "welch"),
    ),
    Benchmark(
        "gate_day_night",
        "alarms/stream/30 d",
        "lower",
        "one mean for all hours",
        "<= 1.5",
        lambda b: Pair(day_and_night(b, True), day_and_night(b, False)),
    ),
    Benchmark("gate_1000_applications", "CPU s", "lower", None, "< 30", thousand_applications),
)
