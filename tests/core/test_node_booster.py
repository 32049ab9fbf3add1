"""What departments sell each day ahead: learnt from all of them, from the past alone."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.alignment import Shapes, expected, learn
from forecast_core.alignment.booster import BACK_DAYS, fit, predict

CUTOFF = date(2016, 4, 24)
HORIZON = 14
DAYS = 900
PAST = [CUTOFF - timedelta(days=DAYS - 1 - k) for k in range(DAYS)]
AHEAD = [CUTOFF + timedelta(days=k) for k in range(1, HORIZON + 1)]
WEEKDAY = np.array([1.0, 0.8, 0.9, 1.0, 1.2, 1.6, 1.5])
FEAST = (CUTOFF + timedelta(days=6)).toordinal() % 30


def calendar(days: list[date]) -> pl.DataFrame:
    """A feast on every 30th day, one of them a week ahead."""
    names = ["Feast" if d.toordinal() % 30 == FEAST else None for d in days]
    nothing = pl.lit(None, pl.String)
    return pl.DataFrame({"date": days, "event_name_1": names}).with_columns(
        event_type_1=nothing, event_name_2=nothing, event_type_2=nothing, snap_S=pl.lit(False)
    )


CALENDAR = calendar(
    [*PAST, *(AHEAD[-1] + timedelta(days=k - HORIZON + 1) for k in range(HORIZON + 8))]
)


def truth(days: list[date]) -> np.ndarray:
    """What a day brings beside its level: weekdays, and half as much again on a feast."""
    feast = np.array([1.5 if d.toordinal() % 30 == FEAST else 1.0 for d in days])
    return WEEKDAY[[d.weekday() for d in days]] * feast


def totals(nodes: int = 6) -> pl.DataFrame:
    rng = np.random.default_rng(3)
    return pl.concat(
        pl.DataFrame(
            {
                "date": PAST,
                "store_id": f"S_{node % 2}",
                "state_id": "S",
                "dept_id": f"D_{node // 2}",
                "units": np.round(100.0 * (node + 1) * truth(PAST) * rng.normal(1, 0.03, DAYS)),
            }
        )
        for node in range(nodes)
    )


@pytest.fixture(scope="module")
def model() -> str:
    text = fit(totals(), CALENDAR, CUTOFF, HORIZON)
    assert text is not None
    return text


def test_weekdays_and_a_feast_ahead_are_foretold_for_every_department(model: str) -> None:
    found = predict(model, totals(), CALENDAR, CUTOFF, HORIZON)
    assert found.select("store_id", "dept_id", "ds").rows() == [
        (f"S_{s}", f"D_{d}", day) for s in range(2) for d in range(3) for day in AHEAD
    ]
    for (store, dept), rows in found.group_by("store_id", "dept_id"):
        size = 100.0 * (2 * int(str(dept)[2:]) + int(str(store)[2:]) + 1)
        np.testing.assert_allclose(rows["units"].to_numpy(), size * truth(AHEAD), rtol=0.12)


def test_a_store_alone_is_foretold_as_among_others(model: str) -> None:
    """Predictions go store by store; a year and two months of totals is all they look at."""
    recent = totals().filter(pl.col("date") > CUTOFF - timedelta(days=BACK_DAYS))
    together = predict(model, recent, CALENDAR, CUTOFF, HORIZON)
    alone = predict(model, recent.filter(store_id="S_1"), CALENDAR, CUTOFF, HORIZON)
    assert alone.equals(together.filter(store_id="S_1"))


def test_nothing_after_the_cutoff_is_looked_at(model: str) -> None:
    later = totals().with_columns(pl.col("date").dt.offset_by("30d"), units=pl.lit(1e6))
    poisoned = pl.concat([totals(), later.filter(pl.col("date") > CUTOFF)])
    assert fit(poisoned, CALENDAR, CUTOFF, HORIZON) == model
    clean, dirty = (
        predict(model, known, CALENDAR, CUTOFF, HORIZON) for known in (totals(), poisoned)
    )
    assert clean.equals(dirty)


def test_too_little_history_is_no_model_and_no_forecast(model: str) -> None:
    short = totals().filter(pl.col("date") > CUTOFF - timedelta(days=BACK_DAYS + 60))
    assert fit(short, CALENDAR, CUTOFF, HORIZON) is None
    year = totals().filter(pl.col("date") > CUTOFF - timedelta(days=BACK_DAYS - 1))
    assert predict(model, year, CALENDAR, CUTOFF, HORIZON).is_empty()


def test_a_store_without_any_sale_is_no_model_and_no_forecast(model: str) -> None:
    nobody = totals().clear()
    assert fit(nobody, CALENDAR, CUTOFF, HORIZON) is None
    assert predict(model, nobody, CALENDAR, CUTOFF, HORIZON).is_empty()


def test_a_new_department_is_foretold_by_the_others_and_a_thin_one_is_not(model: str) -> None:
    known = totals(2)
    new = known.with_columns(dept_id=pl.lit("D_new"))
    thin = known.with_columns(dept_id=pl.lit("D_thin"), units=pl.lit(1.0))
    found = predict(model, pl.concat([known, new, thin]), CALENDAR, CUTOFF, HORIZON)
    assert set(found["dept_id"]) == {"D_0", "D_new"}
    assert found["units"].is_finite().all() and (found["units"] > 0).all()


def test_days_beyond_the_models_horizon_have_no_rows(model: str) -> None:
    found = predict(model, totals(), CALENDAR, CUTOFF, HORIZON + 14)
    assert found["ds"].max() == AHEAD[-1]


def test_what_was_learnt_survives_its_text(model: str) -> None:
    learnt = learn(totals(), CALENDAR, CUTOFF, HORIZON)
    assert learnt.booster == model
    again = Shapes.from_bytes(learnt.to_bytes())
    assert again == learnt
    found = expected(totals(), again, CALENDAR, CUTOFF, HORIZON)
    assert found is not None and found.equals(predict(model, totals(), CALENDAR, CUTOFF, HORIZON))
