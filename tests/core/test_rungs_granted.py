"""Under a granted rung nobody is served by a dearer one, and each degraded forecast says so."""

from __future__ import annotations

import json

import polars as pl
import pytest

from forecast_core.rungs import granted, statistical
from forecast_core.segments import RUNGS

TRAINED = statistical.artefact({"lumpy": "tsb"})
FITTED = pl.DataFrame(
    {
        "segment_group": ["dormant", "long_tail", "core", "star", "alignment", "spread"],
        "rung": ["floor", "statistical", "gbm", "neural", "alignment", "spread"],
        "artefact": [b"f", TRAINED, b"g", b"n", b"a", b"s"],
    }
)
SEGMENTS = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "rung": list(RUNGS)})
ROWS = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "reason": ["own", None, None, None]})


def test_without_a_grant_everything_stands() -> None:
    assert granted.within(FITTED, None).equals(FITTED)
    assert granted.within(FITTED, granted.WHOLE).equals(FITTED)
    assert granted.said(ROWS, SEGMENTS, None, "").equals(ROWS)


@pytest.mark.parametrize("rung", RUNGS)
def test_nobody_is_served_above_the_grant(rung: str) -> None:
    served = granted.within(FITTED, rung)["rung"].to_list()
    above = RUNGS[RUNGS.index(rung) + 1 :]  # type: ignore[arg-type]
    assert not set(served) & set(above)


def test_dearer_groups_go_to_the_statistical_rung_with_methods_that_were_chosen() -> None:
    served = granted.within(FITTED, "statistical")
    assert served.height == FITTED.height
    core = served.filter(segment_group="core").row(0, named=True)
    assert core["rung"] == "statistical" and core["artefact"] == TRAINED


def test_without_any_trained_method_the_default_serves() -> None:
    served = granted.within(FITTED.filter(pl.col("rung") != "statistical"), "statistical")
    artefact = served.filter(segment_group="core")["artefact"][0]
    assert json.loads(artefact)["methods"] == {}


def test_a_group_that_learnt_nothing_lends_nothing() -> None:
    """One without members is kept as the floor's word; whoever is lowered goes by another's."""
    nothing = FITTED.head(1).with_columns(
        segment_group=pl.lit("empty"), rung=pl.lit("statistical"),
        artefact=pl.lit(b'{"kind": "floor"}'),
    )  # fmt: skip
    for fitted, methods in ((FITTED, TRAINED), (FITTED.filter(rung="gbm"), None)):
        served = granted.by_group(pl.concat([nothing, fitted]), {"core": "statistical"})
        lent = served.filter(segment_group="core")["artefact"][0]
        assert lent == (methods or statistical.artefact({}))


def test_under_the_floor_nothing_is_fitted() -> None:
    assert granted.within(FITTED, "floor")["segment_group"].to_list() == ["dormant"]


def test_a_group_whose_policy_became_cheaper_is_served_by_no_dearer_rung() -> None:
    rungs = {"core": "statistical", "star": "floor", "long_tail": "gbm"}
    served = dict(granted.by_group(FITTED, rungs).select("segment_group", "rung").iter_rows())
    assert served == {
        "dormant": "floor", "long_tail": "statistical", "core": "statistical",
        "alignment": "alignment", "spread": "spread",
    }  # fmt: skip
    assert granted.by_group(FITTED, {}).equals(FITTED)


def test_what_is_degraded_says_from_what_to_what_and_why() -> None:
    said = granted.said(ROWS, SEGMENTS, "statistical", "prod/day has 0.1 left (money)")
    reasons = dict(said.select("item_id", "reason").iter_rows())
    assert (reasons["a"], reasons["b"]) == ("own", None)
    for item, rung in (("c", "gbm"), ("d", "neural")):
        assert reasons[item] == (
            f"degraded from rung {rung} to statistical by admission: prod/day has 0.1 left (money)"
        )
