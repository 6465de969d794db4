"""What Vultr says of traffic: bytes of a machine by UTC day, as rows of raw metrics. It has no other metric. Pure.

Source: https://www.vultr.com/api/#tag/instances/operation/get-instance-bandwidth
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from optiinfra_pipelines.clouds.collecting import naive_utc
from optiinfra_pipelines.clouds.vultr.vocabulary import BANDWIDTH
from optiinfra_pipelines.windows import DAY, WINDOW, Window, days


def days_that_end(span: Window) -> list[datetime]:
    """The UTC days, by their start, whose last 15 minutes lie in `span`."""
    return [day.start for day in days(*span) if span.start <= day.end - WINDOW and day.end <= span.end]


def parse_bandwidth(
    answer: Mapping[str, Any], resource_id: str, wanted: Sequence[datetime], source: str
) -> list[dict[str, Any]]:
    """Rows of {"bandwidth": {"2020-07-25": {"incoming_bytes", "outgoing_bytes"}}} on the days `wanted`."""
    by_day = answer.get("bandwidth") or {}
    return [
        {
            "account_id": "",
            "resource_id": resource_id,
            "resource_type": mapping.resource_type,
            "metric_name": mapping.metric,
            "component": "",
            "unit": mapping.unit,
            "statistic": "sum",
            "window_start": naive_utc(day),
            "window_seconds": int(DAY.total_seconds()),
            "value": float(figures[mapping.native]) * mapping.scale,
            "source": source,
        }
        for day in wanted
        if (figures := by_day.get(f"{day:%Y-%m-%d}"))
        for mapping in BANDWIDTH
        if figures.get(mapping.native) is not None
    ]
