"""Plots of a plan's outcome as PNG.

Belongs here: drawing. Does not: figures (`forecast_core.capacity.outcomes`), where plots are kept.
"""

from __future__ import annotations

import io

from forecast_core.capacity.outcomes import Band, Outcome

ZERO = Band(0.0, 0.0, 0.0)


def plot(outcome: Outcome, currency: str) -> bytes:
    """Money by month with its band and by pipeline, storage by tier, the chance of every item."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    (money, parts), (stored, chance) = figure.subplots(2, 2)
    months = list(outcome.months)
    at = list(range(len(months)))
    bands = [outcome.money[month] for month in months]
    money.fill_between(at, [b.low for b in bands], [b.high for b in bands], alpha=0.25)
    money.plot(at, [b.mid for b in bands], marker="o")
    money.set_title(f"Money by month, {currency} (band: 10 to 90 %)")
    below = [0.0] * len(months)
    for name in sorted({name for _, name in outcome.pipelines}):
        heights = [outcome.pipelines.get((month, name), ZERO).mid for month in months]
        parts.bar(at, heights, bottom=below, label=name)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    parts.set_title(f"Money by pipeline, {currency} (median)")
    parts.legend(fontsize=7)
    for tier in ("hot", "warm", "cold"):
        found = [outcome.stored_gib.get((month, tier), ZERO) for month in months]
        stored.fill_between(at, [b.low for b in found], [b.high for b in found], alpha=0.2)
        stored.plot(at, [b.mid for b in found], label=tier)
    stored.set_title("Stored by tier, GiB")
    stored.legend(fontsize=7)
    chance.plot(at, [100 * outcome.p_every_item.get(m, 1.0) for m in months], marker="o")
    chance.set_ylim(-2, 104)
    chance.set_title("Every item forecast by the deadline, % of futures")
    for axes in (money, parts, stored, chance):
        axes.set_xticks(at, [month[2:] for month in months], fontsize=7, rotation=45)
        if axes is not chance:
            axes.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
