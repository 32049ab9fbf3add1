"""What another series saved pays for a lasting rise of as much, and for nothing else."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.incidents.regressions import detect


def ledger(**unit: np.ndarray) -> pl.DataFrame:
    """A charge a day for each segment group, of one pipeline; `unit`: its cost by day."""
    days = [date(2025, 1, 1) + timedelta(k) for k in range(len(next(iter(unit.values()))))]
    rows = [
        {
            "ChargePeriodStart": day,
            "EffectiveCost": float(cost),
            "x_pipeline": "inference",
            "x_segment_group": group,
            "x_environment": "prod",
            "x_run_id": f"{group}:{day}",
            "x_series": 1000,
        }
        for group, costs in unit.items()
        for day, cost in zip(days, costs, strict=True)
    ]
    return pl.DataFrame(rows)


def wavering(seed: int, level: float, n: int = 100) -> np.ndarray:
    return np.asarray(level * np.exp(0.03 * np.random.default_rng(seed).normal(size=n)))


def test_money_that_moved_for_good_is_a_shift() -> None:
    giver, taker = wavering(1, 10.0), wavering(2, 10.0)
    giver[60:] -= 4.0
    taker[60:] += 4.0
    found = detect(ledger(giver=giver, taker=taker))
    assert found.incidents.is_empty()
    assert "shifted from" in found.dismissed["reason"].str.join(" ")[0]


def test_a_lasting_saving_elsewhere_pays_for_no_spike() -> None:
    giver, taker = wavering(3, 10.0), wavering(4, 10.0)
    giver[60:] -= 4.0
    taker[60] += 4.0
    assert detect(ledger(giver=giver, taker=taker)).incidents["kind"].to_list() == ["spike"]


def test_a_large_series_that_wavers_pays_for_no_step_of_a_small_one() -> None:
    giver, taker = wavering(5, 40.0), wavering(6, 10.0)
    giver[60:] -= 4.0  # a tenth of it
    taker[60:] += 4.0
    assert detect(ledger(giver=giver, taker=taker)).incidents["kind"].to_list() == ["step"]


def test_what_runs_weekly_gives_nothing_to_what_runs_daily() -> None:
    giver, taker = wavering(1, 70.0, n=180), wavering(2, 10.0, n=180)
    giver[98:] -= 21.0
    taker[98:] += 3.0
    weekly = ledger(giver=giver).filter(pl.int_range(pl.len()) % 7 == 0)
    found = detect(pl.concat([weekly, ledger(taker=taker)]))
    assert found.incidents["x_segment_group"].to_list() == ["taker"]
