"""An entry that stands for many equal runs is decided as those runs would be, one by one."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from forecast_core.admission import Holding, Quote, Request, Shape, Snapshot, decide
from forecast_core.admission.policy import NANO, Policy
from forecast_core.admission.record import snapshot_from_json, snapshot_to_json

POLICY = Policy.parse(
    yaml.safe_load((Path(__file__).parents[2] / "policies" / "admission.yaml").read_text())
)
NOW = 1_790_000_000.0
WORK = (
    ("serving", "inference", "inference"),
    ("monitoring", "monitoring", "monitoring"),
    ("training", "training", "training"),
    ("backfill", "ingest", "ingest"),
    ("exploratory", "training", "tuning"),
)


def _shapes(rng: random.Random) -> list[Shape]:
    return [
        Shape(
            work_class,
            stage,
            tuple(
                Quote(
                    rung,
                    ((pipeline, rng.randrange(10**6, 3 * NANO)),),
                    rng.uniform(10, 3000),
                    rng.choice((0.1, 0.5, 1.0)),
                    rng.choice((0.1, 0.5, 2.0)),
                )
                for rung in ("gbm", "floor")
            ),
        )
        for work_class, stage, pipeline in WORK
        for _ in range(2)
    ]


def _snapshot(seed: int) -> tuple[Snapshot, Snapshot]:
    """The same queue in entries with counts, and run by run."""
    rng = random.Random(seed)
    shapes = _shapes(rng)
    entries, counts = [], {}
    for number in range(rng.randrange(1, 9)):
        launch = rng.choice(("", f"launch-{rng.randrange(3)}"))
        deadline = NOW + rng.uniform(-3600, 9000) if rng.random() < 0.4 else None
        submitted = NOW - rng.choice((0.0, 60.0, 10 * 86_400.0)) - number
        covers = rng.choice((0, 0, 50))
        entry = Request(f"w{number}", rng.choice(shapes), submitted, deadline, launch, covers)
        entries.append(entry)
        counts[entry.id] = rng.randrange(1, 30)
    running = []
    for number in range(rng.randrange(3)):
        shape = rng.choice(shapes)
        request = Request(f"h{number}", shape, NOW - 300)
        running.append(Holding(request, shape.quotes[0], NOW - rng.choice((60, 90_000))))
        counts[request.id] = rng.randrange(1, 3)
    spent = {"prod/day": {"serving": rng.randrange(20 * NANO)}}
    batched = Snapshot(
        NOW, "prod", tuple(entries), tuple(running), spent, items_due=rng.choice((0, 2000)),
        counts=counts,
    )  # fmt: skip
    singly = replace(
        batched,
        waiting=tuple(
            entry._replace(id=f"{entry.id}/{i:03d}")
            for entry in entries
            for i in range(counts[entry.id])
        ),
        running=tuple(h for h in running for _ in range(counts[h.request.id])),
        counts={},
    )
    return batched, singly


def _starts(decisions: list) -> Counter[tuple[str, str, str]]:
    return Counter((d.id.split("/")[0], d.action, d.rung) for d in decisions if d.starts)


@pytest.mark.parametrize("seed", range(400))
def test_as_many_start_as_singly_and_the_rest_is_told_the_same(seed: int) -> None:
    batched, singly = _snapshot(seed)
    together, apart = decide(batched, POLICY), decide(singly, POLICY)
    assert _starts(together) == _starts(apart)
    refused = {d.id: (d.action, d.code) for d in together if not d.starts}
    for decision in apart:
        if not decision.starts:
            last = refused[decision.id.split("/")[0]]
            assert last[0] == decision.action
            assert last[1] == decision.code or "fan_out" in (last[1], decision.code)


def test_a_thousand_equal_runs_start_as_far_as_the_lanes_go() -> None:
    shape = Shape("serving", "inference", (Quote("floor", (("inference", 10),), 60.0, 0.1, 0.1),))
    snapshot = Snapshot(NOW, "prod", (Request("all", shape, NOW),), counts={"all": 1000})
    decisions = decide(snapshot, POLICY)
    lanes = POLICY.stages["inference"].runs
    assert [d.action for d in decisions] == ["admit"] * lanes + ["hold"]


def test_counts_are_kept_on_record_and_absent_where_there_are_none() -> None:
    batched, singly = _snapshot(3)
    assert snapshot_from_json(snapshot_to_json(batched)) == batched
    assert '"counts"' not in snapshot_to_json(singly)
