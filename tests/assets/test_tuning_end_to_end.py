"""`forecast tune`: trials within the budget, in the lake and the ledger; a verdict on what won."""

import json
from pathlib import Path
from typing import Any

import pytest

from forecast_core.evaluation.tuning import CHALLENGER
from resources.decision_store import DecisionStore
from resources.lake import Lake
from resources.ledger import open_ledger

BUDGET = 40.0
CUTOFF = "2025-06-29"


@pytest.mark.slow
def test_a_search_stops_at_its_budget_and_its_winner_is_judged(
    finished: tuple[Any, str], tmp_path: Path
) -> None:
    installation = finished[0].copied(tmp_path / "copy")
    done = installation.forecast(
        "tune", "--cutoff", CUTOFF, "--series", "50", "--budget", str(BUDGET), "--worth", "1000"
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    root = installation.root / "data" / "dev"
    trials = Lake(root / "demo" / "lake").table("eval_tuning").read().frame.collect().sort("trial")
    assert trials.height >= 2 and trials["trial"].to_list() == list(range(trials.height))
    assert trials["cpu_s"].sum() <= BUDGET
    assert set(trials["segment_group"]) == {"gbm_core"} and trials["error"].is_finite().all()

    best = trials.sort("error", "trial").row(0, named=True)
    judged = trials.drop_nulls("verdict")
    if best["trial"] == 0:  # nothing beat today's settings: nothing to judge
        assert judged.is_empty()
    else:
        assert judged["trial"].to_list() == [best["trial"]]
    url = f"sqlite:///{root / 'ledger.db'}"
    promoted = [
        option
        for decision in DecisionStore(url).all()
        for option in decision.options
        if option["lever"] == CHALLENGER
    ]
    won = judged.filter(verdict="promote")
    assert [option["settings"] for option in promoted] == [
        json.loads(settings) for settings in won["settings"]
    ]
    charged = open_ledger(url).charges().filter(x_asset="eval_tuning", SkuId="vcpu_s")
    assert set(charged["x_pipeline"]) == {"tuning"}
    assert float(charged["PricingQuantity"].sum()) > trials["cpu_s"].sum() / 2
