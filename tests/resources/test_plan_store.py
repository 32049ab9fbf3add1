"""Plans at rest: versions are numbered, never changed, and the same plan is the same version."""

from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from forecast_core.capacity.plan import Plan
from resources.capacity_records import sign_review, unsigned, written
from resources.plan_store import REVIEW, PlanStore

FILE = Path(__file__).parents[2] / "policies" / "capacity.yaml"


def test_a_changed_plan_is_a_new_version_and_an_equal_one_is_not(tmp_path: Path) -> None:
    store = PlanStore(f"sqlite:///{tmp_path / 'ledger.db'}")
    plan = Plan.parse(yaml.safe_load(FILE.read_text()))
    assert [store.put(plan).number, store.put(plan).number] == [1, 1]
    changed = plan.changed(months=6)
    assert store.put(changed).number == 2
    assert store.put(plan).number == 3
    assert [v.hash for v in store.versions("base")] == [plan.hash, changed.hash, plan.hash]
    assert Plan.parse(yaml.safe_load(store.versions("base")[1].text)).months == 6


def test_what_is_kept_cannot_be_changed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    PlanStore(url).put(Plan.parse(yaml.safe_load(FILE.read_text())))
    with sa.create_engine(url).begin() as connection, pytest.raises(sa.exc.DatabaseError):
        connection.execute(sa.text("UPDATE capacity_events SET details = '{}'"))


def test_reviews_wait_for_their_signature(tmp_path: Path) -> None:
    store = PlanStore(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(LookupError, match="no unsigned review"):
        sign_review(store, "base", "finance-partner", "stands")
    store.note("base", REVIEW, {"on": "2027-03-03", "version": 1, "text": "..."})
    assert [d.isoformat() for d in unsigned(store, "base")] == ["2027-03-03"]
    assert sign_review(store, "base", "finance-partner", "stands") == "2027-03-03"
    assert unsigned(store, "base") == [] and len(written(store, "base")) == 1
