"""Items are bent to what their store-department shows, and nothing else changes."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.alignment import (
    BOOSTED,
    AlignmentError,
    Shapes,
    align,
    expected,
    learn,
    levels,
    node_totals,
)
from forecast_core.alignment.shapes import HISTORY_DAYS, fit_shapes

CUTOFF = date(2016, 4, 24)
HORIZON = 28
AHEAD = [CUTOFF + timedelta(days=k) for k in range(1, HORIZON + 1)]
WEEKDAY = np.array([1.0, 0.8, 0.9, 1.0, 1.2, 1.6, 1.5])
EFFECT = {"Feast": 1.5, "Christmas": 0.0}


def calendar_of(days: list[date]) -> pl.DataFrame:
    """A feast on every 60th day and Christmas; SNAP on the first ten days of a month."""
    names = [
        "Christmas"
        if (d.month, d.day) == (12, 25)
        else "Feast"
        if d.toordinal() % 60 == 0
        else None
        for d in days
    ]
    return pl.DataFrame(
        {"date": days, "event_name_1": names, "snap_S": [int(d.day <= 10) for d in days]}
    )


ALL_DAYS = [CUTOFF - timedelta(days=HISTORY_DAYS + 10 - k) for k in range(HISTORY_DAYS + 400)]
CALENDAR = calendar_of(ALL_DAYS)


def truth(days: list[date]) -> np.ndarray:
    """What a day brings beside its level."""
    effects = calendar_of(days)["event_name_1"].replace_strict(EFFECT, default=1.0).to_numpy()
    snap = np.array([1.2 if d.day <= 10 else 1.0 for d in days])
    return WEEKDAY[[d.weekday() for d in days]] * snap * effects


def totals(level: float = 200.0, store: str = "S_1", days: int = HISTORY_DAYS) -> pl.DataFrame:
    past = [CUTOFF - timedelta(days=days - 1 - k) for k in range(days)]
    noise = np.random.default_rng(3).normal(1, 0.03, days)
    return pl.DataFrame(
        {
            "date": past,
            "store_id": store,
            "state_id": "S",
            "dept_id": "D_1",
            "units": np.round(level * truth(past) * noise),
        }
    )


def flat(items: dict[str, float], store: str = "S_1") -> pl.DataFrame:
    """Every item the same each day."""
    return pl.concat(
        pl.DataFrame({"item_id": item, "store_id": store, "ds": AHEAD, "mean": mean, "rung": "gbm"})
        for item, mean in items.items()
    )


DEPARTMENTS = pl.DataFrame(
    {
        "item_id": ["a", "b", "other"],
        "store_id": ["S_1", "S_1", "S_1"],
        "dept_id": ["D_1", "D_1", "D_2"],
    }
)


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return fit_shapes(totals(), CALENDAR, CUTOFF)


def test_a_shape_finds_weekday_snap_and_event(shapes: Shapes) -> None:
    made = align(flat({"a": 10.0, "b": 30.0}), DEPARTMENTS, shapes, CALENDAR, strength=1)
    daily = made.group_by("ds", maintain_order=True).agg(pl.col("mean").sum())["mean"].to_numpy()
    expected = truth(AHEAD) / truth(AHEAD).mean() * 40.0
    np.testing.assert_allclose(daily, expected, rtol=0.08)
    assert daily.mean() == pytest.approx(40.0)


def test_half_the_strength_goes_half_the_way(shapes: Shapes) -> None:
    base = flat({"a": 10.0})
    whole, half = (
        align(base, DEPARTMENTS, shapes, CALENDAR, strength=s)["mean"].to_numpy() for s in (1, 0.5)
    )
    np.testing.assert_allclose(half / half[0], np.sqrt(whole / whole[0]), rtol=1e-9)
    none = align(base, DEPARTMENTS, shapes, CALENDAR, strength=0)
    np.testing.assert_allclose(none["mean"].to_numpy(), 10.0)


def test_the_level_is_found_and_moved_to(shapes: Shapes) -> None:
    level = levels(totals(), shapes, CALENDAR, CUTOFF, HORIZON)
    expected = 200.0 * truth(AHEAD).sum()
    assert level["level"].item() == pytest.approx(expected, rel=0.05)
    low = flat({"a": 0.8 * expected / HORIZON})
    moved = align(low, DEPARTMENTS, shapes, CALENDAR, level, level_strength=1)
    assert moved["mean"].sum() == pytest.approx(level["level"].item())


def test_days_go_most_of_the_way_to_what_the_booster_expects(shapes: Shapes) -> None:
    base = flat({"a": 10.0, "b": 30.0, "other": 1.0})
    node = {"store_id": "S_1", "dept_id": "D_1", "ds": AHEAD}
    steep = pl.DataFrame({**node, "units": np.linspace(1.0, 3.0, HORIZON)})
    plain, made = (
        align(base, DEPARTMENTS, shapes, CALENDAR, boosted=boosted, strength=1).filter(item_id="a")
        for boosted in (None, steep)
    )
    assert made["mean"].sum() == pytest.approx(plain["mean"].sum())
    way = np.log(made["mean"].to_numpy() / plain["mean"].to_numpy())
    wanted = np.log(steep["units"].to_numpy() / plain["mean"].to_numpy())
    np.testing.assert_allclose(way - way.mean(), BOOSTED * (wanted - wanted.mean()), atol=1e-9)
    others = (frame.filter(item_id="other") for frame in (made, plain))
    assert next(others).equals(next(others))


def test_days_that_the_booster_does_not_know_keep_their_shape(shapes: Shapes) -> None:
    base = flat({"a": 10.0})
    few = pl.DataFrame({"store_id": "S_1", "dept_id": "D_1", "ds": AHEAD[:7], "units": [5.0] * 7})
    plain, made = (
        align(base, DEPARTMENTS, shapes, CALENDAR, boosted=boosted)["mean"].to_numpy()
        for boosted in (None, few)
    )
    later = made[7:] / plain[7:]
    np.testing.assert_allclose(later, later[0])


def test_no_node_moves_further_than_its_bound(shapes: Shapes) -> None:
    level = levels(totals(), shapes, CALENDAR, CUTOFF, HORIZON)
    tiny = flat({"a": 0.001})
    moved = align(tiny, DEPARTMENTS, shapes, CALENDAR, level, level_strength=1)
    assert moved["mean"].sum() == pytest.approx(1.5 * tiny["mean"].sum())


def test_a_store_that_grows_is_expected_to_go_on_growing() -> None:
    """Ten percent a year: its level lies four weeks behind, which is some .7 percent."""
    past = totals(days=900)
    age = (pl.lit(CUTOFF) - pl.col("date")).dt.total_days()
    grown = past.with_columns(units=pl.col("units") * pl.lit(1.1).pow(-age / 364))
    young = totals(days=400).with_columns(store_id=pl.lit("S_2"))
    unnamed = pl.lit(None, pl.String)
    calendar = CALENDAR.with_columns(event_type_1=unnamed, event_name_2=unnamed)
    shapes = learn(pl.concat([grown, young]), calendar, CUTOFF, HORIZON)
    assert shapes.growth == {"S_1": pytest.approx(1.1, rel=0.01)}
    with_growth, without = (
        levels(grown, kept, CALENDAR, CUTOFF, HORIZON)["level"].item()
        for kept in (shapes, replace(shapes, growth={}))
    )
    assert with_growth / without == pytest.approx(1.1 ** (28 / 364), rel=0.001)


def test_a_day_on_which_the_store_is_shut_is_zero() -> None:
    cutoff = date(2015, 12, 10)
    shapes = fit_shapes(totals(), CALENDAR, cutoff)
    assert shapes.closed == ("Christmas",)
    days = [cutoff + timedelta(days=k) for k in range(1, 29)]
    base = flat({"a": 10.0, "other": 1.0}).with_columns(ds=pl.Series(days * 2))
    made = align(base, DEPARTMENTS, shapes, CALENDAR)
    shut = made.filter(pl.col("ds") == date(2015, 12, 25))
    assert dict(shut.select("item_id", "mean").iter_rows()) == {"a": 0.0, "other": 1.0}
    assert made.filter(item_id="a")["mean"].sum() == pytest.approx(270.0)


def test_nothing_after_the_cutoff_is_looked_at(shapes: Shapes) -> None:
    later = totals().with_columns(pl.col("date").dt.offset_by("40d"), units=pl.lit(1e6))
    poisoned = pl.concat([totals(), later.filter(pl.col("date") > CUTOFF)])
    assert fit_shapes(poisoned, CALENDAR, CUTOFF) == shapes
    clean, dirty = (levels(t, shapes, CALENDAR, CUTOFF, HORIZON) for t in (totals(), poisoned))
    assert clean.equals(dirty)


@pytest.mark.parametrize("thin", [totals(days=100), totals(level=2.0), totals().clear()])
def test_too_little_to_learn_from_leaves_forecasts_alone(thin: pl.DataFrame) -> None:
    shapes = fit_shapes(thin, CALENDAR, CUTOFF)
    level = levels(thin, shapes, CALENDAR, CUTOFF, HORIZON)
    base = flat({"a": 10.0, "b": 1.0})
    assert not shapes.coefficients and level.is_empty()
    assert align(base, DEPARTMENTS, shapes, CALENDAR, level).equals(base)


def test_half_a_year_of_history_and_a_long_horizon_stay_finite() -> None:
    short = totals(days=200)
    shapes = fit_shapes(short, CALENDAR, CUTOFF)
    level = levels(short, shapes, CALENDAR, CUTOFF, 380)
    assert level["level"].is_finite().all() and (level["level"] > 0).all()


def test_a_year_and_a_week_of_history_is_no_turn(shapes: Shapes) -> None:
    """The weeks before the same day a year ago are known in part only: sales did not jump then."""
    short = totals(days=371)
    level = levels(short, fit_shapes(short, CALENDAR, CUTOFF), CALENDAR, CUTOFF, HORIZON)
    assert level["level"].item() == pytest.approx(200.0 * truth(AHEAD).sum(), rel=0.05)


def test_a_calendar_that_knows_nothing_leaves_the_weekdays(shapes: Shapes) -> None:
    base = flat({"a": 10.0})
    made = align(base, DEPARTMENTS, shapes, CALENDAR.clear(), strength=1)
    assert made["mean"].is_finite().all()
    by_weekday = made.group_by(pl.col("ds").dt.weekday()).agg(pl.col("mean").mean()).sort("ds")
    assert by_weekday["mean"].arg_max() == 5


def test_shapes_survive_their_text_and_refuse_another(shapes: Shapes) -> None:
    assert Shapes.from_bytes(shapes.to_bytes()) == shapes
    for wrong in (b"", b"[]", b'{"kind": "gbm"}', b"\x80\x04."):
        with pytest.raises(AlignmentError, match="fit them again"):
            Shapes.from_bytes(wrong)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(shapes: Shapes, strength: float) -> None:
    with pytest.raises(AlignmentError, match="not from 0 to 1"):
        align(flat({"a": 1.0}), DEPARTMENTS, shapes, CALENDAR, strength=strength)


def test_totals_are_sums_of_items() -> None:
    sales = pl.DataFrame(
        {
            "date": [CUTOFF] * 4,
            "store_id": "S_1",
            "state_id": "S",
            "dept_id": ["D_1", "D_1", "D_2", "D_2"],
            "units": [1.0, 2.0, None, float("nan")],
        }
    )
    assert node_totals(sales).select("dept_id", "units").rows() == [("D_1", 3.0), ("D_2", 0.0)]


MEANS = st.dictionaries(
    st.sampled_from(["a", "b", "other", "unknown"]), st.floats(0, 1e5), min_size=1
)


@settings(max_examples=40, deadline=None)
@given(MEANS, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_rows_stay_and_shares_within_a_node_and_day_stay(
    items: dict[str, float], strength: float, level_strength: float, levelled: bool
) -> None:
    shapes = fit_shapes(totals(days=200), CALENDAR, CUTOFF)
    level = levels(totals(days=200), shapes, CALENDAR, CUTOFF, HORIZON) if levelled else None
    base = flat(items)
    made = align(
        base, DEPARTMENTS, shapes, CALENDAR, level, strength=strength, level_strength=level_strength
    )
    assert made.drop("mean").equals(base.drop("mean"))
    assert made["mean"].is_finite().all() and (made["mean"] >= 0).all()
    for item in {"other", "unknown"} & set(items):
        assert made.filter(item_id=item).equals(base.filter(item_id=item))
    if items.get("a", 0) > 1e-6 and items.get("b", 0) > 1e-6:
        a, b = (made.filter(item_id=i)["mean"].to_numpy() for i in "ab")
        np.testing.assert_allclose(a * items["b"], b * items["a"], rtol=1e-9)
    if not levelled and items.get("a", 0) > 1e-6:
        assert made.filter(item_id="a")["mean"].sum() == pytest.approx(items["a"] * HORIZON)


@pytest.mark.parametrize("sunday", [0.0, 0.04])
def test_a_weekday_without_sales_is_not_bent_up(sunday: float) -> None:
    """A shop that is shut on Sundays, or all but: what an item is forecast there stays little."""
    sales = totals(2000.0).with_columns(
        units=pl.when(pl.col("date").dt.weekday() == 7)
        .then((pl.col("units") * sunday).round())
        .otherwise("units")
    )
    named = (c for c in ("event_type_1", "event_name_2", "event_type_2"))
    calendar = CALENDAR.with_columns(pl.lit(None, pl.String).alias(c) for c in named)
    shapes = learn(sales, calendar, CUTOFF, HORIZON)
    assert Shapes.from_bytes(shapes.to_bytes()) == shapes
    assert shapes.idle == ({} if sunday else {("S_1", "D_1"): (6,)})
    level = levels(sales, shapes, calendar, CUTOFF, HORIZON)
    boosted = expected(sales, shapes, calendar, CUTOFF, HORIZON)
    rows = flat({"a": 20.0, "b": 40.0}).with_columns(
        mean=pl.when(pl.col("ds").dt.weekday() == 7).then(0.5).otherwise("mean")
    )
    bent = align(rows, DEPARTMENTS, shapes, calendar, level, boosted)
    days = bent.group_by(pl.col("ds").dt.weekday() == 7).agg(pl.col("mean").mean())
    means = dict(days.iter_rows())
    assert means[True] <= (0.1 * means[False] if sunday else 0)
    assert means[False] > 20
