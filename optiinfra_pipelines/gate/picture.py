"""A small picture of scores beside their control limits, as SVG in a line of Markdown. Pure; no library draws it."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 220, 52, 12, 26, 24


@dataclass(frozen=True)
class Point:
    """The mean of the scores of one stretch of time, with the limits that chance leaves it: 3 standard errors."""

    at: datetime
    mean: float
    low: float
    high: float


def control_chart(title: str, points: Sequence[Point], expected: float, margin: float, since: datetime | None) -> str:
    """Markdown that shows the points, a band of their limits, the expected mean and the line where the margin is lost;
    `since` is marked as the begin of what is judged. Empty without points."""
    if not points:
        return ""
    values = [each for point in points for each in (point.mean, point.low, point.high)] + [expected, margin]
    lowest, highest = min(values), max(values)
    room = (highest - lowest or abs(highest) or 1.0) * 0.05
    first, last = points[0].at, points[-1].at
    seconds = (last - first).total_seconds() or 1.0

    def x(at: datetime) -> float:
        return round(_LEFT + (at - first).total_seconds() / seconds * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        share = (value - lowest + room) / (highest - lowest + 2 * room)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    band = [(x(each.at), y(each.high)) for each in points] + [(x(each.at), y(each.low)) for each in reversed(points)]
    line = [(x(each.at), y(each.mean)) for each in points]
    drawn = [
        f'<polygon points="{_joined(band)}" fill="#dbe4ee"/>',
        _level(y(expected), "#3b6ea5", ""),
        _level(y(margin), "#c0392b", ' stroke-dasharray="5 4"'),
        f'<polyline points="{_joined(line)}" fill="none" stroke="#222" stroke-width="1.5"/>',
        *(f'<circle cx="{at}" cy="{height}" r="2" fill="#222"/>' for at, height in line),
        _said(4, y(expected) + 4, f"{expected:.3g}"),
        _said(4, y(margin) + 4, f"{margin:.3g}"),
        _said(_LEFT, _HEIGHT - 6, f"{first:%Y-%m-%d %H:%M}"),
        _said(_WIDTH - 130, _HEIGHT - 6, f"{last:%Y-%m-%d %H:%M}"),
        _said(_LEFT, 16, title),
    ]
    if since is not None and first <= since <= last:
        at = x(since)
        drawn.append(f'<line x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#888"/>')
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{"".join(drawn)}</svg>'
    )
    return f"![scores](data:image/svg+xml;base64,{b64encode(svg.encode()).decode()})"


def _joined(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{at},{height}" for at, height in corners)


def _level(height: float, colour: str, style: str) -> str:
    return f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height}" y2="{height}" stroke="{colour}"{style}/>'


def _said(left: float, height: float, text: str) -> str:
    return f'<text x="{left}" y="{height}">{escape(text)}</text>'
