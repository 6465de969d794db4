"""`python -m optiinfra_pipelines.llm.planning --drop 5 --within 3`: how many scores a window, and how many dollars a
month, it takes to see quality drop by so many points within so many hours.

For the monitor of the quality gate, a CUSUM of window means tuned to half of 5 points and one false alarm a month. Its
run lengths are Siegmund's approximation (Sequential Analysis, 1985, section 2.6, with his correction 1.166 for
discrete time), which lies within a fifth of what simulation measures.
"""

import argparse
import math
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from optiinfra_pipelines.windows import WINDOW, Window

WINDOWS_A_MONTH = 2_880  # of 15 minutes, in 30 days
SPREAD = 0.22  # standard deviation of a 5-level score around 0.87, as measured in simulation
TUNED_TO = 0.05  # the drop, in score, of which the monitor's allowance is half
PRICE = Decimal("0.000142")  # USD an interaction: 1,200 tokens sent, 600 of them cached, and 250 answered
_OVERSHOOT = 1.166
_MOST = 10_000


@dataclass(frozen=True)
class Plan:
    """Scores per 15 minutes of one application, model and variant, and what they do and cost."""

    per_window: int
    hours: float  # mean delay from the drop to the alarm
    usd_a_month: Decimal


def plan(drop: float, within: float, spread: float = SPREAD, price: Decimal = PRICE) -> Plan | None:
    """The fewest scores a window that see a drop of `drop` points (0 to 100) within `within` hours on average.

    None where no number up to 10,000 does: a drop of less than half of what the monitor is tuned to is never seen, and
    none is seen in less than a window.
    """
    low, high = 1, _MOST
    if delay_hours(drop, high, spread) > within:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if delay_hours(drop, middle, spread) <= within else (middle + 1, high)
    return Plan(low, delay_hours(drop, low, spread), price * low * WINDOWS_A_MONTH)


def delay_hours(drop: float, per_window: int, spread: float = SPREAD) -> float:
    """Mean hours from a drop of `drop` points until the alarm, with so many scores a window; infinite where the drop
    is no more than the monitor allows for."""
    unit = math.sqrt(per_window) / spread
    allowance = TUNED_TO / 2 * unit
    height = _height(allowance)
    excess = drop / 100 * unit - allowance
    if excess <= 0:
        return math.inf
    windows = (math.exp(-2 * excess * height) + 2 * excess * height - 1) / (2 * excess**2)
    return max(windows, 1.0) / 4


def _height(allowance: float) -> float:
    """The threshold, with Siegmund's correction in it, at which a month passes between false alarms."""

    def months(height: float) -> float:
        grown = 2 * allowance * height
        return (math.exp(grown) - grown - 1) / (2 * allowance**2) / WINDOWS_A_MONTH

    low, high = _OVERSHOOT, 700 / (2 * allowance)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if months(middle) < 1 else (low, middle)
    return high


def outlook(scored: int, price: Decimal | None, day: Window, now: datetime) -> dict[str, float]:
    """What a day's sampling amounts to, for the metadata of the scores: scores a window over all streams, hours to see
    5 points drop in all of them together, and the judge's price of a month like it (`price`: of one, None: usual)."""
    windows = max(1, int((min(now, day.end) - day.start) / WINDOW))
    a_window = scored / windows
    found = {
        "scores_a_window": round(a_window, 2),
        "judge_usd_a_month": round(a_window * float(PRICE if price is None else price) * WINDOWS_A_MONTH, 4),
    }
    hours = round(delay_hours(5, max(1, round(a_window))), 1)
    return found | ({"hours_to_see_5_points_drop": hours} if scored else {})


def main(arguments: list[str] | None = None) -> None:
    """Print what was asked for, and beside it what more or fewer scores do."""
    parser = argparse.ArgumentParser(prog="python -m optiinfra_pipelines.llm.planning", description=__doc__)
    parser.add_argument("--drop", type=float, default=5, help="points of 100 by which quality drops (5)")
    parser.add_argument("--within", type=float, default=3, help="hours in which it is to be seen (3)")
    parser.add_argument("--spread", type=float, default=SPREAD, help=f"standard deviation of a score ({SPREAD})")
    parser.add_argument("--price", type=Decimal, default=PRICE, help=f"USD for one interaction judged ({PRICE})")
    options = parser.parse_args(arguments)
    found = plan(options.drop, options.within, options.spread, options.price)
    if found is None:
        print(f"no number of scores shows a drop of {options.drop:g} points within {options.within:g} h")
    else:
        print(
            f"a drop of {options.drop:g} points within {options.within:g} h takes {found.per_window} scores per 15 "
            f"minutes of each application, model and variant: {found.usd_a_month:.2f} USD a month"
        )
    print(f"\n{'scores a window':>16} {'hours to an alarm':>18} {'USD a month':>12}")
    for number in (5, 10, 20, 50, 100):
        usd = options.price * number * WINDOWS_A_MONTH
        print(f"{number:>16} {delay_hours(options.drop, number, options.spread):>18.1f} {usd:>12.2f}")


if __name__ == "__main__":
    main()
