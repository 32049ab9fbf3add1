"""What was measured takes the place of what the plan states; what was not is named."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.capacity.measured import Scores, believed, measured_accuracy
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.whatif import pulled

SHIPPED = Path(__file__).parents[3] / "policies" / "capacity.yaml"
FIRST = date(2025, 1, 1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan.parse(yaml.safe_load(SHIPPED.read_text()))


def scored(naive: float, floor: float, governed: float, cutoffs: int = 3) -> pl.DataFrame:
    """Each level misses by as much more as the next one misses less."""
    rows = [
        (FIRST + timedelta(n), level, name, error + apart)
        for n in range(cutoffs)
        for level, apart in (("total", 0.1), ("item_store", -0.1))
        for name, error in (("seasonal_naive", naive), ("floor", floor), ("governed", governed))
    ]
    names = ["cutoff", "level", "forecaster", "wrmsse"]
    return pl.DataFrame(rows, schema=names, orient="row")


def tried(**gains: dict[str, float]) -> pl.DataFrame:
    """Segment -> forecaster -> by what share it misses less than a floor that misses 1."""
    rows = [
        (FIRST, "segment", segment, name, gain, gain)
        for segment, forecasters in gains.items()
        for name, gain in forecasters.items()
    ]
    names = ["cutoff", "scope", "name", "forecaster", "fva_wrmsse", "wrmsse_gained"]
    return pl.DataFrame(rows, schema=names, orient="row")


def lever_rows(lever: str, cost: float, error: float) -> pl.DataFrame:
    """Two groups at level 0 (cost 10, error .5, value 100 and 300); the first has the lever."""
    rows = [
        (group, "none" if level == 0 else lever, level, fold, *figures, value)
        for group, value in (("a", 100.0), ("b", 300.0))
        for level, figures in ((0, (10.0, 0.5)), (1, (cost, error)))
        for fold in range(3)
        if level == 0 or group == "a"
    ]
    names = ["group", "lever", "level", "fold", "cost", "error", "value"]
    return pl.DataFrame(rows, schema=names, orient="row")


def test_nothing_scored_leaves_the_plan_as_stated_and_says_so(plan: Plan) -> None:
    same, notes = believed(plan, Scores())
    assert same.accuracy == plan.accuracy and same.levers == plan.levers
    assert same.hash == plan.hash
    assert sum(note.startswith("accuracy: no scored cutoff") for note in notes) == 1
    assert {name for name in plan.levers if any(f"lever {name}:" in n for n in notes)} == set(
        plan.levers
    )


def test_scored_cutoffs_give_the_errors(plan: Plan) -> None:
    found, notes = measured_accuracy(plan.accuracy, Scores(scored(0.9, 0.7, 0.5)))
    assert found.none == pytest.approx(0.9)
    assert found.rungs["floor"] == pytest.approx(0.7)
    assert found.rungs["governed"] == pytest.approx(0.5)
    assert "3 cutoffs" in found.source
    # .669 of .73 to .605: .488 of the way, stated
    assert found.rungs["statistical"] == pytest.approx(0.7 - 0.2 * (0.73 - 0.669) / 0.125)
    assert [note.partition(":")[0] for note in notes] == ["accuracy of statistical"]


@settings(deadline=None)
@given(share=st.floats(-1, 2), governed=st.floats(0.05, 0.5))
def test_a_rung_of_some_segments_gains_its_share(share: float, governed: float) -> None:
    shipped = Plan.parse(yaml.safe_load(SHIPPED.read_text())).accuracy
    gains = {"governed": governed, "statistical": share * governed}
    scores = Scores(scored(0.9, 0.7, 0.6), tried(smooth=gains, lumpy=gains))
    found, notes = measured_accuracy(shipped, scores)
    assert found.rungs["statistical"] == pytest.approx(0.7 - share * 0.1)
    assert not notes and "eval_backtest" in found.source


def test_cutoffs_without_all_three_say_nothing(plan: Plan) -> None:
    partly = scored(0.9, 0.7, 0.5).filter(pl.col("forecaster") != "seasonal_naive")
    assert measured_accuracy(plan.accuracy, Scores(partly))[0] == plan.accuracy


def test_a_lever_does_what_its_backtests_showed(plan: Plan) -> None:
    rows = lever_rows("fewer_features", cost=6.0, error=0.54)
    found, notes = believed(plan, Scores(levers=rows))
    lever = found.levers["fewer_features"]
    assert lever.error == pytest.approx(0.04 * 100 / (0.5 * 400))
    assert lever.volume["upgrade"] == lever.volume["train"] == pytest.approx(1 - 4 / 20)
    assert lever.volume["features"] == plan.levers["fewer_features"].volume["features"]
    assert "measured" in lever.source and "1 groups, 3 windows" in lever.source
    assert any("lever fewer_features: volume of features is stated" in note for note in notes)
    assert found.levers["reclassify"] == plan.levers["reclassify"]


def test_a_pulled_lever_keeps_what_was_measured(plan: Plan) -> None:
    scores = Scores(scored(0.9, 0.7, 0.5), levers=lever_rows("fewer_features", 6.0, 0.54))
    found, _ = believed(plan, scores)
    changed = pulled(found, "fewer_features")
    assert changed.work["upgrade"].volume == pytest.approx(0.8)
    assert changed.accuracy == found.accuracy and changed.levers == found.levers
