"""The ladder: every rung that a policy may name is fitted, forecasts, and pays for itself."""

from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl
import pytest

from forecast_assets import ladder
from forecast_assets.ladder import LADDER, NOTHING_LEARNT, Training, fit_or_below
from forecast_assets.upgrading import shares_of
from forecast_core.cost.settlement import Share
from forecast_core.rungs.gbm import Fitted, NoExamplesError
from forecast_core.rungs.neural import NeuralError
from forecast_core.segments import RUNGS, Group, Rung


def test_every_rung_above_the_floor_has_a_step() -> None:
    assert tuple(LADDER) == RUNGS[1:] and RUNGS[0] == "floor"


def test_each_group_of_a_store_is_paid_by_the_version_that_serves_it() -> None:
    groups = [f"by_{rung}" for rung in RUNGS]
    segments = pl.DataFrame({"segment_group": [*groups, groups[0], "untrained"]})
    fitted = pl.DataFrame(
        {"segment_group": groups, "rung": RUNGS, "version": [f"v-{rung}" for rung in RUNGS]}
    )
    shares = shares_of(segments, fitted, "s")
    assert shares["by_floor"] == Share("floor", None, "by_floor", "s", 2)
    assert shares["untrained"] == Share("floor", None, "untrained", "s", 1)
    for rung in RUNGS[1:]:
        assert shares[f"by_{rung}"] == Share(rung, f"v-{rung}", f"by_{rung}", "s", 1)


def _refusing(error: Exception) -> Any:
    def fit(asked: Training, members: pl.DataFrame) -> Fitted:
        raise error

    return fit


@pytest.mark.parametrize(
    ("own", "works", "comes"),
    [
        ("neural", {"neural", "gbm", "statistical"}, "neural"),
        ("neural", {"gbm", "statistical"}, "gbm"),
        ("gbm", {"neural", "statistical"}, "statistical"),
        ("neural", set(), "floor"),
        ("floor", set(RUNGS), "floor"),
    ],
)
def test_a_rung_that_cannot_be_fitted_gives_way_to_the_next_below(
    own: Rung, works: set[Rung], comes: Rung, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {"neural": NeuralError("no torch"), "gbm": NoExamplesError("too young")}
    steps = {
        rung: replace(
            step,
            fit=(lambda asked, members, rung=rung: Fitted(rung.encode(), {}))
            if rung in works
            else _refusing(errors.get(rung, NoExamplesError("none"))),
        )
        for rung, step in LADDER.items()
    }
    monkeypatch.setattr(ladder, "LADDER", steps)
    nothing: Any = None
    asked = Training(Group(name="g", rung=own), date(2025, 6, 1), 28, nothing, nothing, nothing)
    told: list[str] = []
    members = pl.DataFrame({"item_id": ["a"]})
    rung, fitted = fit_or_below(asked, members, told.append)
    assert rung == comes
    assert fitted.artefact == (NOTHING_LEARNT if comes == "floor" else comes.encode())
    assert len(told) == RUNGS.index(own) - RUNGS.index(comes)
    assert all("g goes without" in line for line in told)
    assert fit_or_below(asked, members.clear(), told.append)[1].artefact == NOTHING_LEARNT
