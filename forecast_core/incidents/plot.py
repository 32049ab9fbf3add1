"""The plot of a cost incident: unit cost by day, the level it was expected at, where it rose.

Belongs here: one small SVG. Does not: the figures (`unit_costs`, `regressions`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date

WIDTH, HEIGHT, MARGIN = 640, 200, 34


def svg(
    days: Sequence[date], unit: Sequence[float | None], start: date, expected: float, title: str
) -> str:
    """An SVG of the series; days without a unit cost are gaps. Empty text without any point."""
    points = [(d, v) for d, v in zip(days, unit, strict=True) if v is not None and math.isfinite(v)]
    if not points:
        return ""
    first, last = points[0][0], points[-1][0]
    top = max(max(v for _, v in points), expected) * 1.1 or 1.0

    def x(day: date) -> float:
        reach = max((last - first).days, 1)
        return MARGIN + (WIDTH - 2 * MARGIN) * (day - first).days / reach

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value / top

    line = " ".join(f"{x(d):.1f},{y(v):.1f}" for d, v in points)
    at = x(min(max(start, first), last))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">'
        f'<text x="{MARGIN}" y="16">{_plain(title)}</text>'
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(expected):.1f}" '
        f'y2="{y(expected):.1f}" stroke="#888" stroke-dasharray="4 3"/>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" stroke="#c33"/>'
        f'<polyline fill="none" stroke="#246" stroke-width="1.5" points="{line}"/>'
        f'<text x="{MARGIN}" y="{HEIGHT - 10}">{first}</text>'
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 10}" text-anchor="end">{last}</text>'
        f'<text x="{at:.1f}" y="{MARGIN - 4}" fill="#c33" text-anchor="middle">{start}</text>'
        "</svg>"
    )


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
