"""The rows that the shipped plan states for a night, against those that a night would land."""

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from forecast_core.capacity.plan import Plan, PlanError
from forecast_core.generate import DemoSpec
from forecast_core.rungs.origin_features import origin_days
from forecast_core.storage.tiers import month_end
from resources.sources import DemoSource

PLAN = yaml.safe_load((Path(__file__).parents[2] / "policies" / "capacity.yaml").read_text())
NIGHTS = [date(2025, 1, 3) + timedelta(days=23 * k) for k in range(16)]


def landed(night: date) -> dict[str, float]:
    """Rows a series that landing the night's month writes, by what the source tells of it."""
    spec = DemoSpec(series=60, stores=1, days=400, last=night)
    source, store = DemoSource(spec), spec.store_ids[0]
    first, last = night.replace(day=1), month_end(night)
    tables = {
        "raw_sales": source.sales(store, first, last),
        "raw_prices": source.prices(store, first, last),
        "raw_inventory": source.inventory(store, first, last),
    }
    features = len(origin_days(first, night, (night,)))
    counts = {name: rows.height / spec.series for name, rows in tables.items()}
    return counts | {"feature_sales": features}


def test_a_night_lands_what_the_plan_says() -> None:
    plan = Plan.parse(PLAN)
    stated = {**plan.work["land"].rows, **plan.work["features"].rows}
    found = [landed(night) for night in NIGHTS]
    for name in found[0]:
        planned = [stated[name].on(night.day) for night in NIGHTS]
        actual = [counts[name] for counts in found]
        assert sum(planned) == pytest.approx(sum(actual), rel=0.06), name
        for night, a, b in zip(NIGHTS, planned, actual, strict=True):
            # Weeks are whole rows: a month may begin and end within one, or with one.
            assert a == pytest.approx(b, rel=0.1, abs=1.5), (name, night)


def test_rows_of_no_stage_and_no_rows_are_refused() -> None:
    land = PLAN["work"]["land"]
    for rows, said in (
        ({"raw_sails": {"by_day": 1}}, "'raw_sails' is no stage of it"),
        ({"raw_sales": {}}, "no rows at all"),
        ({"raw_sales": {"by_day": -1}}, "greater than or equal to 0"),
    ):
        with pytest.raises(PlanError, match=said):
            Plan.parse({**PLAN, "work": {**PLAN["work"], "land": {**land, "rows": rows}}})
