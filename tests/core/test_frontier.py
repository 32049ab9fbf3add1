"""The contest of rungs and its frontier: scores that add up, costs that are shared out whole."""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
import yaml

from forecast_core import levers
from forecast_core.combination import EVERYONE, Weight, Weights
from forecast_core.evaluation import backtest, frontier, frontier_plot
from forecast_core.evaluation.accuracy import scales
from forecast_core.evaluation.backtest import Past
from forecast_core.evaluation.contest import GOVERNED, Contest, Setup, contest
from forecast_core.generate import DemoSpec
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs import origin_features
from forecast_core.rungs.gbm import LEVELS, GbmSpec
from forecast_core.segments import RUNGS, SegmentPolicy
from forecast_core.source.clean import clean
from resources.sources import DemoSource

ROOT = Path(__file__).resolve().parents[2]
SPEC = DemoSpec(series=40, stores=2, days=400)
HORIZON = 14
USD = 0.5


@pytest.fixture(scope="module")
def policy() -> SegmentPolicy:
    return SegmentPolicy.parse(yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text()))


@pytest.fixture(scope="module")
def past() -> Past:
    source = DemoSource(SPEC)
    sales, features = {}, {}
    for store in source.stores():
        raw = (
            source.sales(store, SPEC.first, SPEC.last),
            source.prices(store, SPEC.first, SPEC.last),
        )
        sales[store] = clean(*raw).kept
        days = origin_features.origin_days(SPEC.first + timedelta(days=60), SPEC.last)
        features[store] = origin_features.build(sales[store], days)
    return Past.of_frames(sales, features, source.calendar())


@pytest.fixture(scope="module")
def held(past: Past, policy: SegmentPolicy) -> Contest:
    ticks: Iterator[int] = count()  # every timed call takes one second
    series = pl.concat(past.sales(s, SPEC.first, SPEC.last) for s in SPEC.store_ids)
    setup = Setup(
        GbmSpec(threads=1, rounds=20, per_origin=4, min_data_in_leaf=50),
        features=("full", "reduced"),
        refit=True,
        trial_series=5,
    )
    windows = backtest.origins(SPEC.last, HORIZON, 3)
    return contest(
        past, series.select(LEVELS).unique(), windows, HORIZON, policy, lambda: next(ticks), setup
    )


@pytest.fixture(scope="module")
def by(past: Past, held: Contest):
    members = next(iter(held.members.values()))
    hierarchy = Hierarchy.of(members.select(LEVELS).sort("store_id", "item_id"))
    return {
        day: scales(
            ((s, past.sales(s, SPEC.first, day)) for s in SPEC.store_ids),
            hierarchy,
            SPEC.first,
            day,
        )
        for day in held.members
    }


def test_segments_add_up_to_all_series_and_costs_to_the_whole(past, held, by) -> None:
    scored = frontier.by_segment(past, held, by, USD)
    for run in held.runs:
        mine = scored.filter(cutoff=run.cutoff, forecaster=run.forecaster)
        pairs = backtest.sold(past, run.rows).drop_nulls("units")
        assert mine["series"].sum() == pairs.select("item_id", "store_id").n_unique()
        assert mine["units"].sum() == pytest.approx(pairs["units"].sum())
        absolute = (mine["wape"].fill_null(0) * mine["units"]).sum()
        sold = pairs.join(mine_units(pairs, held, run), on=["item_id", "store_id"], how="semi")
        assert absolute == pytest.approx((sold["mean"] - sold["units"]).abs().sum())
        assert mine["cpu_s"].sum() == pytest.approx(run.fit_s + run.predict_s)
    assert (scored["usd"] - scored["cpu_s"] * USD).abs().max() < 1e-9


def mine_units(pairs: pl.DataFrame, held: Contest, run) -> pl.DataFrame:
    """The series of segments in which anything was sold: others have no WAPE."""
    labels = held.members[run.cutoff].select("item_id", "store_id", "segment")
    told = pairs.join(labels, on=["item_id", "store_id"])
    return told.filter(pl.col("units").sum().over("segment") > 0).select("item_id", "store_id")


def test_levels_and_segments_agree_on_the_item_stores(past, held, by) -> None:
    levels = frontier.by_level(past, held, by).filter(level="item_id/store_id")
    scored = frontier.by_segment(past, held, by, USD).drop_nulls("wrmsse")
    for day in held.members:
        whole = levels.filter(cutoff=day, forecaster=GOVERNED)["wrmsse"].item()
        parts = scored.filter(cutoff=day, forecaster=GOVERNED)
        weighted = (parts["weight"] * parts["wrmsse"]).sum() / parts["weight"].sum()
        assert weighted == pytest.approx(whole, rel=0.02)  # series without a scale apart
    later = frontier.by_level(past, held, by).filter(
        pl.col("cutoff") > min(held.members), forecaster=GOVERNED, level="item_id/store_id"
    )
    assert later["scaled_pinball"].is_finite().all()
    assert later["coverage80"].is_between(0.6, 1.0).all()


def test_the_efficient_are_neither_dearer_nor_worse(past, held, by) -> None:
    table = frontier.frontier(frontier.by_segment(past, held, by, USD))
    for _, rows in table.group_by("segment"):
        kept = rows.filter("efficient")
        assert kept.height
        for row in kept.drop_nulls("wrmsse").iter_rows(named=True):
            better = rows.filter(
                (pl.col("cpu_ms_per_series") < row["cpu_ms_per_series"])
                & (pl.col("wrmsse") <= row["wrmsse"])
            )
            assert better.is_empty()
    ElementTree.fromstring(frontier_plot.svg(table))
    ElementTree.fromstring(frontier_plot.svg(table.clear()))


def test_the_levers_read_what_the_contest_measured(past, held, policy) -> None:
    rows = frontier.lever_backtests(past, held, policy, USD)
    assert set(rows.columns) == set(levers.BACKTEST_COLUMNS)
    tried = set(rows["lever"].unique()) - {"none"}
    assert tried == set(levers.LEVERS)
    options = {(o.lever, o.level): o for o in levers.measure(rows.filter(group="gbm_core"))}
    assert options["simpler_forecaster", 2].saving > 0  # the floor is cheaper than a model
    assert options["retrain_less", 1].saving > 0
    base = rows.filter(level=0, group="gbm_core").sort("fold")
    run = next(r for r in held.runs if r.forecaster == "gbm" and r.cutoff == min(held.members))
    group = policy.group("gbm_core")
    share = (
        held.members[run.cutoff].filter(segment_group="gbm_core").height
        / run.rows.select("item_id", "store_id").n_unique()
    )
    seconds = run.fit_s * frontier.PERIOD_DAYS / group.retrain_days + 28 * run.predict_s
    assert base["cost"][0] == pytest.approx(share * seconds * USD)


class _Constant:
    """A challenger that forecasts five a day for everyone, and notes its fits."""

    def __init__(self) -> None:
        self.fits: list[date] = []

    def fit(self, past: Past, members: pl.DataFrame, cutoff: date, horizon: int) -> bytes:
        self.fits.append(cutoff)
        return bytes([horizon])

    def predict(
        self, artefact: bytes, past: Past, members: pl.DataFrame, cutoff: date
    ) -> pl.DataFrame:
        days = pl.DataFrame({"ds": [cutoff + timedelta(days=k + 1) for k in range(artefact[0])]})
        rows = members.select("item_id", "store_id").join(days, how="cross")
        return rows.with_columns(mean=pl.lit(5.0))


def test_a_challenger_is_fitted_once_and_serves_what_the_policy_gives_it(past) -> None:
    content = yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text())
    neural = next(group for group in content["groups"] if group["rung"] == "neural")
    neural |= {"enabled": True, "when": {"abc": ["A"]}}
    series = pl.concat(past.sales(s, SPEC.first, SPEC.last) for s in SPEC.store_ids)
    windows = backtest.origins(SPEC.last, HORIZON, 2)
    constant, ticks = _Constant(), count()
    held = contest(
        past,
        series.select(LEVELS).unique(),
        windows,
        HORIZON,
        SegmentPolicy.parse(content),
        lambda: next(ticks),
        Setup(
            GbmSpec(threads=1, rounds=5, per_origin=2, min_data_in_leaf=50),
            challengers={"neural": constant},
            challenged=lambda members: members.filter(rung="neural"),
        ),
    )
    assert constant.fits == windows[:1]
    for day in windows:
        runs = {run.forecaster: run for run in held.runs if run.cutoff == day}
        served = held.members[day].filter(rung="neural").select("item_id", "store_id")
        assert runs["neural"].trained_to == windows[0]
        assert runs["neural"].rows.height == HORIZON * served.height > 0
        # The network's fit is paid whole, the shared one by the part of its series that it serves.
        shared = runs["gbm"].rows.join(
            held.members[day].filter(rung="gbm"), on=["item_id", "store_id"], how="semi"
        )
        part = shared.height / runs["gbm"].rows.height
        assert 0 < part < 1
        assert runs[GOVERNED].fit_s == pytest.approx(1 + 1 + part)  # and the trial


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_governed_is_what_would_be_served_the_floors_part_included(
    past, policy: SegmentPolicy, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    """By weights learnt before the first window, at every window; and the trial is paid for."""
    asked: list[date] = []

    def learnt(_past: Past, _series: pl.DataFrame, day: date, *_: object) -> Weights:
        asked.append(day)
        return Weights({(EVERYONE, rung): Weight(weight, 3, 0.9, 0.9) for rung in RUNGS})

    monkeypatch.setattr("forecast_core.evaluation.contest._earned", learnt)
    series = pl.concat(past.sales(s, SPEC.first, SPEC.last) for s in SPEC.store_ids)
    windows = backtest.origins(SPEC.last, HORIZON, 2)
    ticks = count()
    spec = GbmSpec(threads=1, rounds=5, per_origin=2, min_data_in_leaf=50)
    held = contest(
        past, series.select(LEVELS).unique(), windows, HORIZON, policy, lambda: next(ticks),
        Setup(spec, trial_series=5),
    )  # fmt: skip
    assert asked == windows[:1]
    key = ["item_id", "store_id", "ds"]
    for day in windows:
        runs = {run.forecaster: run for run in held.runs if run.cutoff == day}
        members = held.members[day]
        floor = runs["floor"].rows
        used = {
            rung: runs[rung].rows.join(
                members.filter(rung=rung), on=["item_id", "store_id"], how="semi"
            )
            for rung in ("statistical", "gbm")
        }
        asks = {} if weight == 0 else used
        bent = backtest.aligned(past, backtest.over_floor(floor, asks), members, day, HORIZON)
        both = bent.join(floor.select(*key, base="mean"), on=key).join(
            runs[GOVERNED].rows.select(*key, told="mean"), on=key
        )
        expected = both["base"] + weight * (both["mean"] - both["base"])
        assert both.height == floor.height == runs[GOVERNED].rows.height
        assert both["told"].to_numpy() == pytest.approx(expected.to_numpy())
        parts = [asks[rung].height / runs[rung].rows.height for rung in asks]
        fits = [runs[rung].fit_s for rung in asks]
        paid = 1 + sum(a * b for a, b in zip(parts, fits, strict=True))
        assert runs[GOVERNED].fit_s == pytest.approx(paid)
