"""The lever MILP at size, and its plan against greedy and uniform cuts where it was not measured.

Belongs here: scoring `forecast_core.levers`. Does not: measuring levers on real backtests.

Losses are drawn as a true loss per option; the plans see a noisy measurement of it (six folds) and
are judged by another noisy draw, the hold-out. `loss_vs_*` is the plan's hold-out loss as a share
of the other's, for at least the same saving.
"""

from __future__ import annotations

import time

import numpy as np

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
        out[f"loss_vs_{name}"] = own / _realised(other, held_out)
    return out


def _spend(options: list[Option]) -> float:
    """What the groups cost before any lever: their deepest option saves a known share of it."""
    return float(sum(o.saving for o in options if o.level == LEVELS)) / 0.8


def _realised(plan: Plan, held_out: dict[tuple[str, int], float]) -> float:
    return sum(held_out[(o.group, o.level)] for o in plan.taken)
