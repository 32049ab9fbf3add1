"""The frontier as a picture: cost across, accuracy up, one mark for a rung in a segment.

Belongs here: laying points out as SVG text. Does not: any figure (`frontier`).
"""

from __future__ import annotations

import math
from html import escape

import polars as pl

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 420, 64, 48
_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#9c755f")


def svg(table: pl.DataFrame) -> str:
    """Draw `frontier` rows: CPU-ms a series (log) against the share of the floor's WRMSSE avoided.

    The area of a mark is the segment's error avoided; hovering says which it is.
    """
    points = table.filter(
        (pl.col("forecaster") != "floor")
        & (pl.col("cpu_ms_per_series") > 0)
        & pl.col("fva_wrmsse").is_finite()
    )
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    if points.is_empty():
        return "".join([*body, '<text x="20" y="40">nothing above the floor yet</text></svg>'])
    x = points["cpu_ms_per_series"].log10().to_list()
    y = points["fva_wrmsse"].to_list()
    across = _Scale(min(x), max(x), _LEFT, _WIDTH - 160)
    up = _Scale(min(*y, 0.0), max(*y, 0.01), _HEIGHT - _BOTTOM, 24)
    names = points["forecaster"].unique().sort().to_list()
    colour = {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(names)}
    zero = up(0.0)
    body += [
        f'<line x1="{_LEFT}" x2="{_WIDTH - 160}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#999"/>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">CPU-ms a series and window, log scale: '
        f"{10 ** min(x):.3g} to {10 ** max(x):.3g}</text>",
        f'<text x="8" y="16">share of the floor\'s WRMSSE avoided: {min(y):.1%} to {max(y):.1%}; '
        "the line is the floor</text>",
    ]
    most = max(abs(a) for a in points["error_avoided"].to_list()) or 1.0
    for row, at, gain in zip(points.iter_rows(named=True), x, y, strict=True):
        radius = 3 + 12 * math.sqrt(abs(row["error_avoided"]) / most)
        said = f"{row['segment']} {row['forecaster']}: {gain:.1%} for {10**at:.3g} CPU-ms"
        body.append(
            f'<circle cx="{across(at):.1f}" cy="{up(gain):.1f}" r="{radius:.1f}" '
            f'fill="{colour[row["forecaster"]]}" fill-opacity=".65"><title>{escape(said)}</title>'
            "</circle>"
        )
    for k, name in enumerate(names):
        at = 40 + 20 * k
        body.append(
            f'<circle cx="{_WIDTH - 140}" cy="{at}" r="6" fill="{colour[name]}"/>'
            f'<text x="{_WIDTH - 128}" y="{at + 4}">{escape(name)}</text>'
        )
    return "".join([*body, "</svg>"])


class _Scale:
    """From a range of values to a range of pixels."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.span = low, (high - low) or 1.0
        self.start, self.stop = start, stop

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / self.span * (self.stop - self.start)
