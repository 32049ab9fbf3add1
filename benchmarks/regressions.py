"""Cost-regression detection against planted truth, with a raw-cost detector beside.

Belongs here: scoring `forecast_core.incidents.regressions` on labelled ledgers of any seed. Does
not: the generator or the detector.

An incident is right when it names the planted series and kind and was opened between the start of
the rise and `_GRACE` days after its end. Its precision counts every incident of that kind; the
overall one counts every incident.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from forecast_core.incidents import planted_ledger, regressions, unit_costs

_GRACE = timedelta(days=3)
_DAILY = ("inference", "reconciliation", "monitoring")  # the generator's pipelines of each night


@dataclass(frozen=True)
class Scored:
    """`matched`: truth rows with the incident that answers them (null where missed)."""

    matched: pl.DataFrame
    incidents: int
    right: int
    right_any_kind: int
    false: pl.DataFrame


def score(truth: pl.DataFrame, incidents: pl.DataFrame) -> Scored:
    """Each planted rise takes the first incident of its series opened while it was there."""
    found, used, right, near = [], set(), 0, 0
    rows = incidents.with_row_index("row").to_dicts()
    for planted in truth.iter_rows(named=True):
        inside = [
            r
            for r in rows
            if r["series"] == planted["series"]
            and planted["start"] <= r["detected"]
            and r["detected"] <= max(planted["end"], planted["start"]) + _GRACE
            and r["row"] not in used
        ]
        same = [r for r in inside if r["kind"] == planted["kind"]]
        hit = next(iter(same or inside), None)
        if hit is not None:
            used.add(hit["row"])
            near += 1
            right += hit["kind"] == planted["kind"]
        found.append(
            {
                **planted,
                "found_kind": hit["kind"] if hit else None,
                "detected": hit["detected"] if hit else None,
            }
        )
    false = incidents.with_row_index("row").filter(~pl.col("row").is_in(list(used)))
    schema = pl.Schema({**truth.schema, "found_kind": pl.String(), "detected": pl.Date()})
    return Scored(pl.DataFrame(found, schema=schema), len(rows), right, near, false)


def delays(matched: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Cycles from the planted start to detection (1: known at the first raised cycle), and the
    planted excess spent till then as a share of a month's cost."""
    rows = []
    for r in matched.filter(pl.col("detected").is_not_null()).iter_rows(named=True):
        labels = dict(zip(unit_costs.SERIES, r["series"].split("/"), strict=True))
        own = frame.filter(*(pl.col(k) == v for k, v in labels.items()))
        rising = len(own.filter(pl.col("day").is_between(r["start"], r["end"])))
        during = own.filter(pl.col("day").is_between(r["start"], r["detected"]))
        cycle = np.arange(1, len(during) + 1)
        ramp = np.minimum(cycle / rising, 1.0) if r["kind"] == "creep" else np.ones(len(during))
        without = during["real"].to_numpy() * np.exp(-r["size"] * ramp)
        excess = float(during["real"].sum() - without.sum())
        gap = float(np.median(np.diff(own["day"].to_physical().to_numpy())))
        month = float(np.mean(without)) * 30 / gap
        rows.append({**r, "cycles": len(during), "excess_share": excess / month})
    schema = pl.Schema({**matched.schema, "cycles": pl.Int64(), "excess_share": pl.Float64()})
    return pl.DataFrame(rows, schema=schema)


def run(quick: bool, seed: int = planted_ledger.HOLD_OUT) -> dict[str, float | int | str]:
    """Figures over ledgers drawn from `seed` on; shares of 1."""
    ledgers = 2 if quick else 10
    parts, raw_parts, late, false, months, series = [], [], [], [], 0.0, 0
    for i in range(ledgers):
        drawn = planted_ledger.generate(seed + i)
        found = regressions.detect(drawn.ledger, drawn.accuracy, drawn.events)
        costs = unit_costs.daily(drawn.ledger)
        parts.append(score(drawn.truth, found.incidents))
        false.append(parts[-1].false)
        late.append(delays(parts[-1].matched, costs.frame))
        raw = regressions.detect(drawn.ledger, raw=True)
        raw_parts.append(score(drawn.truth, raw.incidents))
        series += len(found.series)
        months += float(found.series["days"].sum()) / 30
    matched, delayed = pl.concat([p.matched for p in parts]), pl.concat(late)
    out: dict[str, float | int | str] = {"seed": seed, "series": series}
    out |= _rates(parts)
    for kind in regressions.KINDS:
        planted = matched.filter(pl.col("kind") == kind)
        named = sum(len(p.false.filter(pl.col("kind") == kind)) for p in parts)
        wrong_kind = matched.filter(pl.col("found_kind") == kind, pl.col("kind") != kind)
        right = len(planted.filter(pl.col("found_kind") == kind))
        out[f"planted_{kind}"] = len(planted)
        out[f"recall_{kind}"] = _share(right, len(planted))
        out[f"precision_{kind}"] = _share(right, right + named + len(wrong_kind))
    steps = delayed.filter(pl.col("kind").is_in(["step", "nogain"]))
    spikes = delayed.filter(pl.col("kind") == "spike")
    creeps = delayed.filter(pl.col("kind") == "creep")
    out["delay_cycles"] = _mean(steps["cycles"])
    out["step_within_2_cycles"] = _share(len(steps.filter(pl.col("cycles") <= 2)), len(steps))
    out["spike_at_its_run"] = _share(len(spikes.filter(pl.col("cycles") <= 1)), len(spikes))
    out["creep_within_8pct_month"] = _cheap(creeps)
    # A weekly run is a quarter of a month's cost: two or three of them are past 8 % by themselves.
    daily = pl.col("series").str.split("/").list.first().is_in(_DAILY)
    out["creep_within_8pct_month_daily"] = _cheap(creeps.filter(daily))
    out["creep_within_8pct_month_weekly"] = _cheap(creeps.filter(~daily))
    out["false_per_series_month"] = sum(len(f) for f in false) / months
    raw_rates = _rates(raw_parts)
    out["raw_precision"], out["raw_recall"] = raw_rates["precision"], raw_rates["recall"]
    out["raw_false_per_series_month"] = sum(len(p.false) for p in raw_parts) / months
    return out


def _cheap(creeps: pl.DataFrame) -> float:
    """Share known before 8 % of a month's cost was spent on them."""
    return _share(len(creeps.filter(pl.col("excess_share") <= 0.08)), len(creeps))


def _rates(parts: list[Scored]) -> dict[str, float]:
    """Precision and recall where the kind must be right, and where any kind will do."""
    planted = sum(len(p.matched) for p in parts)
    opened = sum(p.incidents for p in parts)
    return {
        "precision": _share(sum(p.right for p in parts), opened),
        "recall": _share(sum(p.right for p in parts), planted),
        "precision_any_kind": _share(sum(p.right_any_kind for p in parts), opened),
        "recall_any_kind": _share(sum(p.right_any_kind for p in parts), planted),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: pl.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")  # type: ignore[arg-type]
