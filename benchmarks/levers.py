"""The lever MILP at size, and its plan against greedy and uniform cuts where it was not measured.

Belongs here: scoring `forecast_core.levers`. Does not: measuring levers (`_lever_windows`).

`loss_vs_*` is the plan's loss on a hold-out as a share of the other's, for at least the same saving
(below 1: the plan lost less). Where M5 is at hand the levers are measured on windows of it, the
hold-out is the next window (`held_out` says so), and the loss is summed over several savings;
where both plans gained accuracy there, it is the other's gain as a share of the plan's.
`drawn_loss_vs_*` is the same at size, on drawn options: a true loss each, of which the plans see
one noisy measurement (six folds) and the hold-out is another.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks import _lever_windows
from benchmarks._apart import apart
from benchmarks._m5 import folder
from forecast_core import levers
from forecast_core.levers import Option, Plan

LEVELS = 6


def draw(seed: int, groups: int) -> tuple[list[Option], dict[tuple[str, int], float]]:
    """Measured options, and the hold-out loss by (group, level)."""
    rng = np.random.default_rng([seed, groups])
    options, held_out = [], {}
    for g in range(groups):
        cost = float(10 ** rng.uniform(-1, 1.5))
        value = float(10 ** rng.uniform(1, 4.5))
        # Losses are convex in the level for some groups and a cliff for others.
        saved = np.sort(rng.uniform(0.05, 0.95, LEVELS))
        steepness = rng.uniform(0.5, 4.0)
        true = value * rng.uniform(0.002, 0.05) * saved**steepness
        true[int(rng.integers(LEVELS)) :] *= rng.choice([1.0, 1.0, 3.0])
        noise = value * 0.004
        for level in range(1, LEVELS + 1):
            loss = float(true[level - 1] + rng.normal(0, noise / np.sqrt(6)))
            saving = float(cost * saved[level - 1])
            name = f"group_{g:05d}"
            lever = levers.LEVERS[(level - 1) % len(levers.LEVERS)]
            half = 2 * noise / np.sqrt(6)
            options.append(
                Option(
                    name, lever, level, saving, 0.9 * saving, 1.1 * saving, loss, loss - half,
                    loss + half, 6,
                )
            )  # fmt: skip
            held_out[(name, level)] = float(true[level - 1] + rng.normal(0, noise / np.sqrt(6)))
    return options, held_out


def run(quick: bool, seed: int = 10_000) -> dict[str, float | int | str]:
    """Seconds are wall; shares of 1."""
    groups = 300 if quick else 3000
    options, held_out = draw(seed, groups)
    saving = 0.2 * _spend(options)
    began = time.perf_counter()
    plan = levers.best(options, saving)
    seconds = time.perf_counter() - began
    others = {"greedy": levers.greedy(options, saving), "uniform": levers.uniform(options, saving)}
    assert isinstance(plan, Plan)
    own = _realised(plan, held_out)
    out: dict[str, float | int | str] = {
        "seed": seed,
        "groups": groups,
        "levels": LEVELS,
        "seconds": seconds,
        "gap": plan.gap,
        "saving_share": plan.saving / _spend(options),
        "shadow_price": plan.shadow_price,
    }
    for name, other in others.items():
        assert isinstance(other, Plan)
        out[f"drawn_loss_vs_{name}"] = own / _realised(other, held_out)
        out[f"loss_vs_{name}"] = out[f"drawn_loss_vs_{name}"]
    out["held_out"] = "drawn"
    if _has_m5():
        out |= _on_m5(quick)
    return out


def _has_m5() -> bool:
    try:
        return folder().is_dir()
    except SystemExit:
        return False


def _on_m5(quick: bool) -> dict[str, float | int | str]:
    """The choosers on a window of M5 that none of them has seen; prints the table."""
    measured = apart(_lever_windows.backtests, quick)
    rows = _lever_windows.judged(measured.result)
    print("chooser  wanted  saved in hold-out  error lost in hold-out  groups touched")
    for r in rows:
        print(f"{r.chooser:8} {r.wanted:6.0%} {r.saved:18.1%} {r.lost:23.2%} {r.levers:15d}")
    # Only savings that every chooser reaches can be compared.
    reached = [
        share
        for share in _lever_windows.SAVINGS
        if sum(r.wanted == share for r in rows) == len(_lever_windows.CHOOSE)
    ]
    lost = {
        name: sum(r.lost for r in rows if r.chooser == name and r.wanted in reached)
        for name in _lever_windows.CHOOSE
    }
    return {
        "held_out": "m5",
        "m5_groups": measured.result["group"].n_unique(),
        "m5_folds": measured.result["fold"].n_unique() - 1,
        **{f"m5_loss_{name}": value / max(len(reached), 1) for name, value in lost.items()},
        **{f"loss_vs_{name}": _share(lost["milp"], lost[name]) for name in ("greedy", "uniform")},
        "peak_gb": measured.peak_gb,
    }


def _share(own: float, other: float) -> float:
    """One loss as a share of another: below 1 the plan did better. Where both gained accuracy, the
    other's gain as a share of the plan's; where only one did, 0 or inf."""
    if own == other:
        return 1.0
    if own <= 0 and other <= 0:
        return other / own if own else float("inf")
    return max(own, 0.0) / other if other > 0 else float("inf")


def _spend(options: list[Option]) -> float:
    """What the groups cost before any lever: their deepest option saves a known share of it."""
    return float(sum(o.saving for o in options if o.level == LEVELS)) / 0.8


def _realised(plan: Plan, held_out: dict[tuple[str, int], float]) -> float:
    return sum(held_out[(o.group, o.level)] for o in plan.taken)
