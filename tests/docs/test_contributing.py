"""The changes that CONTRIBUTING.md shows: each is laid over a copy of the code, and used."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, blocks, changes, lay_over

RUNG, TIER, BUDGET, MART = blocks(ROOT / "CONTRIBUTING.md", "diff")


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the code that a change may be laid over."""
    for part in ("forecast_core", "resources", "forecast_assets", "policies", "dbt_project"):
        unwanted = shutil.ignore_patterns("__pycache__", "logs", "partial_parse.msgpack")
        shutil.copytree(ROOT / part, tmp_path / "code" / part, ignore=unwanted)
    return tmp_path / "code"


def _python(root: Path, script: str, *arguments: str, **extra: str) -> str:
    """What a script says that imports the changed code."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **extra},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("change", [RUNG, TIER, BUDGET, MART], ids=str)
def test_it_is_about_ten_lines(change) -> None:
    assert 5 <= sum(one.lines for one in changes(change.text)) <= 12


RUNG_SCRIPT = """
import sys
from datetime import timedelta
import polars as pl, yaml
from forecast_assets.ladder import LADDER, Asked, Serving, Training
from forecast_core.segments import RUNGS, SegmentPolicy
from resources.lake import Lake
from resources.table_view import TableView

assert tuple(LADDER) == RUNGS[1:], (tuple(LADDER), RUNGS)
policy = yaml.safe_load(open("policies/segments.yaml"))
policy["groups"][1]["rung"] = "last_week"
group = SegmentPolicy.parse(policy).group("long_tail")
lake = Lake(sys.argv[1])
views = [TableView(lake.table(name), lambda read: None) for name in
         ("cleaned_sales", "feature_sales", "raw_prices", "demand_segments")]
newest = lake.table("demand_segments").read().frame.collect()
cutoff = newest["as_of"].max()
members = newest.filter(pl.col("as_of") == cutoff, store_id="CA_1")
step = LADDER[group.rung]
fitted = step.fit(Training(group, cutoff, 28, None, views[0], None), members)
asked = Asked(Serving(*views, None, print), group.name, "CA_1", cutoff, 28, 28)
rows = step.forecast(asked, fitted.artefact, members)
sold = asked.sales(7).select("item_id", "date", "units")
both = rows.with_columns(date=pl.col("ds") - timedelta(7)).join(sold, on=["item_id", "date"])
assert rows.height == 28 * members.height and both.height == 7 * members.height
assert (both["mean"] == both["units"].cast(pl.Float64)).all()
"""


def test_the_forecaster_forecasts(changed: Path, finished) -> None:
    lay_over(RUNG.text, changed)
    lake = finished[0].root / "data" / "dev" / "demo" / "lake"
    _python(changed, RUNG_SCRIPT, str(lake))


TIER_SCRIPT = """
import sys
from datetime import date
from pathlib import Path
import polars as pl, yaml
from forecast_core.cells import Cells
from forecast_core.cost.charges import storage_charge
from forecast_core.storage.lifecycle import LifecyclePolicy
from forecast_core.storage.placement import place
from forecast_core.cost.price_card import PriceCard
from forecast_core.schema import TABLES
from resources.lake import Lake
from resources.lifecycle import parts_of
from resources.price_card import load_price_card

policy = LifecyclePolicy.parse(yaml.safe_load(open("policies/lifecycle.yaml")))
rates = load_price_card(Path("policies/price_card.yaml")).on(date(2026, 1, 1), "dev")
table = Lake(sys.argv[1], policy.tiers, as_of=date(2026, 1, 1)).table(TABLES["raw_sales"])
days = [date(2020, 3, 5), date(2024, 3, 5), date(2025, 12, 5)]
rows = TABLES["raw_sales"].conform(pl.DataFrame({"date": days, "item_id": "i", "store_id": "s",
    "dept_id": "d", "cat_id": "c", "state_id": "t", "units": 1}).with_columns(
    pl.lit(None).alias(name) for name in TABLES["raw_sales"].columns
    if name not in ("date", "item_id", "store_id", "dept_id", "cat_id", "state_id", "units")))
table.replace(rows, Cells(days[0], days[-1], ("s",)))
parts = {part.tier.value: part for part in parts_of(table)}
assert list(parts) and set(parts) == {"frozen", "cold", "hot"}, parts
charge = storage_charge(parts["frozen"].sizes, "frozen", days[-1], rates)
assert charge.sku == "gib_month/frozen" and str(charge.unit_price) == "0.001", charge
assert place(parts["frozen"], [], rates, date(2026, 1, 1)).part.tier.value == "frozen"
"""


def test_the_tier_owns_its_ages_and_is_priced(changed: Path, tmp_path: Path) -> None:
    lay_over(TIER.text, changed)
    _python(changed, TIER_SCRIPT, str(tmp_path / "lake"))


BUDGET_SCRIPT = """
import yaml
from forecast_core.admission.policy import Policy, PolicyError

content = yaml.safe_load(open("policies/admission.yaml"))
policy = Policy.parse(content)
assert "dev/tuning" in policy.budgets
content["budgets"]["dev/tuning"]["period"] = "month"
try:
    Policy.parse(content)
    raise SystemExit("a rule that nothing breaks")
except PolicyError as refused:
    assert "dev/tuning: tuning is paid by the day or week" in str(refused), refused
"""


def test_the_budget_is_a_node_and_the_rule_refuses(changed: Path) -> None:
    lay_over(BUDGET.text, changed)
    _python(changed, BUDGET_SCRIPT)


def test_the_mart_sums_to_the_ledger(changed: Path, tmp_path: Path, finished) -> None:
    lay_over(MART.text, changed)
    lake = finished[0].root / "data" / "dev" / "demo" / "lake"
    paths = {"marts": str(tmp_path / "marts.duckdb"), "lake": str(lake)}
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")), "build", "--select", "+cost_by_store",
            "--indirect-selection", "cautious",
            "--vars", json.dumps(paths), "--profiles-dir", ".",
        ],
        capture_output=True, text=True, cwd=changed / "dbt_project",
        env={**os.environ, "PYTHONPATH": str(changed)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "sums_to_the_ledger_cost_by_store" in done.stdout


def test_a_change_that_no_longer_fits_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    with pytest.raises(AssertionError, match="not once"):
        lay_over("+++ a.py\n-x = 1\n+x = 2\n", tmp_path)
