"""Every item asked for comes back with a finite forecast for each day, whatever its history."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.rungs import floor, gbm, statistical
from forecast_core.rungs.frames import means, published, upgraded
from forecast_core.rungs.origin_features import HISTORY_DAYS, build, origin_days
from forecast_core.schema import TABLES

CUTOFF = date(2016, 4, 24)
DAYS = HISTORY_DAYS + gbm.TRAINING_DAYS
HORIZON = 28
NAN = float("nan")


def _histories() -> Mapping[str, list[float | None]]:
    """Units by item, ending on the cutoff; a shorter list is a later launch."""
    rng = np.random.default_rng(7)
    busy = rng.poisson(4, DAYS).astype(float)
    return {
        "all_zero": [0.0] * DAYS,
        "busy": busy.tolist(),
        "constant": [3.0] * DAYS,
        "gaps": [None if k % 3 == 0 else float(u) for k, u in enumerate(busy)],
        "nan": [NAN if k % 50 == 0 else float(u) for k, u in enumerate(busy)],
        "one_day": [5.0],
        "rare": [1.0 if k % 40 == 0 else 0.0 for k in range(DAYS)],
        "stopped": [2.0] * (DAYS - 90) + [0.0] * 90,
    }


def _sales() -> pl.DataFrame:
    frames = []
    for item, units in _histories().items():
        days = [CUTOFF - timedelta(days=len(units) - 1 - k) for k in range(len(units))]
        # A gap is a day without a row; NaN is a row that says nothing.
        kept = [(day, u) for day, u in zip(days, units, strict=True) if u is not None]
        frames.append(
            pl.DataFrame(
                {"date": [d for d, _ in kept], "units": [u for _, u in kept]},
                schema={"date": pl.Date, "units": pl.Float64},
            ).with_columns(
                item_id=pl.lit(item),
                dept_id=pl.lit("D_1"),
                cat_id=pl.lit("D"),
                store_id=pl.lit("S_1"),
                state_id=pl.lit("S"),
                sell_price=pl.lit(2.5),
                on_sale=pl.lit(True),
            )
        )
    return pl.concat(frames)


@pytest.fixture(scope="module")
def sales() -> pl.DataFrame:
    return _sales()


@pytest.fixture(scope="module")
def calendar() -> pl.DataFrame:
    """Ends on the cutoff: the days to be forecast are in no calendar."""
    return pl.DataFrame(
        {
            "date": [CUTOFF - timedelta(days=k) for k in range(DAYS)],
            "event_name_1": ["Feast" if k % 90 == 0 else None for k in range(DAYS)],
            "event_type_1": ["Cultural" if k % 90 == 0 else None for k in range(DAYS)],
            "event_name_2": pl.Series([None] * DAYS, dtype=pl.String),
            "snap_S": [int(k % 30 < 10) for k in range(DAYS)],
        }
    )


@pytest.fixture(scope="module")
def series(sales: pl.DataFrame) -> pl.DataFrame:
    return sales.select(gbm.LEVELS).unique().sort("item_id")


@pytest.fixture(scope="module")
def features(sales: pl.DataFrame) -> pl.DataFrame:
    first = CUTOFF - timedelta(days=gbm.TRAINING_DAYS)
    return build(sales, origin_days(first, CUTOFF, (CUTOFF,)))


SPEC = gbm.GbmSpec(rounds=20, num_leaves=8, min_data_in_leaf=20, threads=1)
NO_PRICES = pl.DataFrame(schema={"item_id": pl.String, "date": pl.Date, "sell_price": pl.Float64})


@pytest.fixture(scope="module")
def fitted(
    sales: pl.DataFrame, features: pl.DataFrame, series: pl.DataFrame, calendar: pl.DataFrame
) -> gbm.Fitted:
    coding = gbm.Coding.of(calendar, series)
    part = gbm.examples(features, sales, series, calendar, coding, CUTOFF, HORIZON, SPEC)
    return gbm.fit([part], coding, SPEC)


def _whole(rows: pl.DataFrame, items: list[str], horizon: int = HORIZON) -> bool:
    """Each item once for each day of the horizon, finite and not negative."""
    days = [CUTOFF + timedelta(days=k) for k in range(1, horizon + 1)]
    wanted = {(item, day) for item in items for day in days}
    found = list(zip(rows["item_id"], rows["ds"], strict=True))
    sound = all(math.isfinite(m) and m >= 0 for m in rows["mean"])
    return sound and len(found) == len(wanted) and set(found) == wanted


@pytest.mark.parametrize("horizon", [1, 7, 28, 400])
def test_the_floor_serves_every_item(sales: pl.DataFrame, horizon: int) -> None:
    items = [*_histories(), "never_seen"]
    rows = floor.seasonal_mean(sales, items, CUTOFF, horizon)
    assert _whole(rows, items, horizon)
    means = dict(rows.group_by("item_id").agg(pl.col("mean").mean()).iter_rows())
    assert means["constant"] == 3.0
    assert means["never_seen"] == means["all_zero"] == means["stopped"] == 0.0


def test_the_floor_is_the_mean_of_the_same_weekdays(sales: pl.DataFrame) -> None:
    rows = floor.seasonal_mean(sales, ["busy"], CUTOFF, HORIZON)
    units = dict(sales.filter(item_id="busy").select("date", "units").iter_rows())
    for day, mean in rows.select("ds", "mean").iter_rows():
        same = [d for d in units if d.weekday() == day.weekday() and (CUTOFF - d).days < 28]
        assert mean == pytest.approx(sum(units[d] for d in same) / 4)


def test_the_gbm_forecasts_what_has_features(
    fitted: gbm.Fitted, features: pl.DataFrame, series: pl.DataFrame, calendar: pl.DataFrame
) -> None:
    rows = gbm.Model(fitted.artefact).predict(
        features, NO_PRICES, series, calendar, CUTOFF, HORIZON
    )
    assert _whole(rows, series["item_id"].to_list())
    level = dict(rows.group_by("item_id").agg(pl.col("mean").mean()).iter_rows())
    assert level["busy"] == pytest.approx(4, abs=1)
    assert level["all_zero"] < level["rare"] + 0.5 < level["busy"]


def test_a_missing_future_price_is_the_last_one_held(
    fitted: gbm.Fitted, features: pl.DataFrame, series: pl.DataFrame, calendar: pl.DataFrame
) -> None:
    model = gbm.Model(fitted.artefact)
    held = pl.DataFrame(
        {
            "item_id": ["busy"] * HORIZON,
            "date": [CUTOFF + timedelta(days=k) for k in range(1, HORIZON + 1)],
            "sell_price": [2.5] * HORIZON,
        }
    )
    without, with_some = (
        model.predict(features, prices, series, calendar, CUTOFF, HORIZON)
        for prices in (NO_PRICES, held)
    )
    assert without.equals(with_some)


def test_an_example_never_looks_past_the_cutoff(
    sales: pl.DataFrame, features: pl.DataFrame, series: pl.DataFrame, calendar: pl.DataFrame
) -> None:
    coding = gbm.Coding.of(calendar, series)
    early = CUTOFF - timedelta(days=60)
    after = pl.col("date") > early
    poisoned = (
        sales.with_columns(units=pl.when(after).then(1e6).otherwise("units")),
        features.with_columns(mean_7=pl.when(after).then(1e6).otherwise("mean_7")),
    )
    clean, dirty = (
        gbm.examples(f, s, series, calendar, coding, early, HORIZON, SPEC)
        for s, f in ((sales, features), poisoned)
    )
    assert len(clean.y) > 300
    np.testing.assert_array_equal(clean.x, dirty.x)
    np.testing.assert_array_equal(clean.y, dirty.y)


def test_the_same_data_gives_the_same_text(
    fitted: gbm.Fitted,
    sales: pl.DataFrame,
    features: pl.DataFrame,
    series: pl.DataFrame,
    calendar: pl.DataFrame,
) -> None:
    coding = gbm.Coding.of(calendar, series)
    part = gbm.examples(features, sales, series, calendar, coding, CUTOFF, HORIZON, SPEC)
    assert gbm.fit([part], coding, SPEC).artefact == fitted.artefact
    assert json.loads(fitted.artefact)["kind"] == "gbm"
    assert fitted.drivers["rows"] == len(part.y) and fitted.drivers["trees"] == SPEC.rounds


def test_the_order_of_the_rows_changes_nothing(
    fitted: gbm.Fitted,
    sales: pl.DataFrame,
    features: pl.DataFrame,
    series: pl.DataFrame,
    calendar: pl.DataFrame,
) -> None:
    def any_order(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.sample(fraction=1, shuffle=True, seed=3)

    coding = gbm.Coding.of(any_order(calendar), any_order(series))
    told = [any_order(rows) for rows in (features, sales, series, calendar)]
    part = gbm.examples(*told, coding, CUTOFF, HORIZON, SPEC)
    assert gbm.fit([part], coding, SPEC).artefact == fitted.artefact


def test_another_loss_is_another_model_of_the_same_level(
    fitted: gbm.Fitted,
    sales: pl.DataFrame,
    features: pl.DataFrame,
    series: pl.DataFrame,
    calendar: pl.DataFrame,
) -> None:
    coding = gbm.Coding.of(calendar, series)
    spec = replace(SPEC, loss="tweedie")
    part = gbm.examples(features, sales, series, calendar, coding, CUTOFF, HORIZON, spec)
    other = gbm.Model(gbm.fit([part], coding, spec).artefact)
    assert other.spec.loss == "tweedie"
    same, changed = (
        model.predict(features, NO_PRICES, series, calendar, CUTOFF, HORIZON)["mean"]
        for model in (gbm.Model(fitted.artefact), other)
    )
    assert not changed.equals(same)
    assert changed.mean() == pytest.approx(same.mean(), rel=0.25)  # twenty trees are few


def test_too_little_history_is_refused_in_words(
    sales: pl.DataFrame, features: pl.DataFrame, series: pl.DataFrame, calendar: pl.DataFrame
) -> None:
    coding = gbm.Coding.of(calendar, series)
    none = gbm.examples(features.clear(), sales, series, calendar, coding, CUTOFF, HORIZON, SPEC)
    with pytest.raises(ValueError, match="too little history"):
        gbm.fit([none], coding, SPEC)


def test_the_statistical_rung_leaves_out_only_what_has_no_history(sales: pl.DataFrame) -> None:
    classes = dict.fromkeys(_histories(), "lumpy")
    chosen = statistical.choose(statistical.trial(sales, classes, CUTOFF))
    fitted = statistical.artefact(chosen)
    rows = statistical.predict(fitted, sales, classes, CUTOFF, HORIZON)
    finite = rows.filter(pl.col("mean").is_finite())
    assert set(rows["item_id"]) == set(classes)
    assert set(classes) - set(finite["item_id"]) == {"one_day"}
    assert _whole(finite, sorted(set(classes) - {"one_day"}))
    level = dict(finite.group_by("item_id").agg(pl.col("mean").mean()).iter_rows())
    assert level["constant"] == pytest.approx(3.0, rel=0.1)
    assert level["all_zero"] == 0.0


@pytest.mark.parametrize("method", statistical.candidates("smooth"))
def test_every_method_for_what_sells_daily_forecasts_hard_series(
    sales: pl.DataFrame, method: str
) -> None:
    classes = dict.fromkeys(_histories(), "smooth")
    rows = statistical.predict(
        statistical.artefact({"smooth": method}), sales, classes, CUTOFF, HORIZON
    )
    assert _whole(rows.filter(pl.col("mean").is_finite()), sorted(set(classes) - {"one_day"}))
    level = dict(rows.group_by("item_id").agg(pl.col("mean").mean()).iter_rows())
    assert level["constant"] == pytest.approx(3.0, rel=0.01)
    assert level["busy"] == pytest.approx(level["gaps"], rel=0.35)


def test_steady_sales_get_their_weekdays_even_with_gaps() -> None:
    """Twice as much on Saturdays; a month of Wednesdays is missing, and today is known."""
    days = [CUTOFF - timedelta(days=k) for k in range(200)][::-1]
    kept = [d for d in days if not (d.weekday() == 2 and 30 < (CUTOFF - d).days < 60)]
    units = np.random.default_rng(5).poisson([16 if d.weekday() == 5 else 8 for d in kept])
    of = pl.DataFrame({"item_id": "a", "date": kept, "units": units.astype(float)})
    errors = statistical.trial(of, {"a": "smooth"}, CUTOFF)["smooth"]
    assert set(errors) == set(statistical.candidates("smooth")) and "ets" in errors
    chosen = statistical.choose({"smooth": errors})
    assert chosen["smooth"] in ("seasonal", "ets", "theta")
    rows = statistical.predict(
        statistical.artefact(chosen), of, {"a": "smooth"}, CUTOFF, HORIZON
    ).with_columns(saturday=pl.col("ds").dt.weekday() == 6)
    by = dict(rows.group_by("saturday").agg(pl.col("mean").mean()).iter_rows())
    assert by[True] == pytest.approx(16, rel=0.3) and by[False] == pytest.approx(8, rel=0.15)


ITEMS = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@settings(max_examples=60, deadline=None)
@given(asked=ITEMS, gbm_items=ITEMS, other_items=ITEMS, horizon=st.integers(1, 5), bad=ITEMS)
def test_an_upgrade_never_loses_an_item(
    asked: list[str], gbm_items: list[str], other_items: list[str], horizon: int, bad: list[str]
) -> None:
    """Rows in = rows out; what a rung lacks or gets wrong stays on the floor, with its reason."""

    def rows(items: list[str], level: float) -> pl.DataFrame:
        matrix = np.full((len(items), horizon), level)
        matrix[[item in bad for item in items], 0] = NAN if level else 0.0
        return means(items, CUTOFF, matrix)

    base = published(rows(asked, 0.0), "S_1", CUTOFF, "floor", "why")
    better = {"gbm": rows(gbm_items, 2.0), "statistical": rows(other_items, 1.0)}
    done = upgraded(base, better)  # type: ignore[arg-type]
    assert done.select("item_id", "ds").equals(base.select("item_id", "ds"))
    assert done.schema == TABLES["prediction_daily"].schema
    assert done["mean"].is_finite().all()
    for row in done.iter_rows(named=True):
        if row["rung"] == "floor":
            assert row["mean"] == 0.0 and row["reason"] == "why"
        else:
            assert row["mean"] == {"gbm": 2.0, "statistical": 1.0}[row["rung"]]
            assert row["reason"] is None
