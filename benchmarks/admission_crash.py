"""kill -9 at every step of an admission pass: no double start, no lost run, money that balances.

Belongs here: the kills and the count. A child process submits and settles runs against a store and
a queue folder, and kills itself at a drawn step; the next child goes on where it was. The queue is
a folder of files (queued, started, ended) that stands for Dagster's: a start is an exclusive
rename, and an announced run is one line appended to the log of starts.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from forecast_core.admission import Load, Quote, Request, Shape
from forecast_core.admission.policy import NANO, Policy
from resources.admission_store import AdmissionStore, StoreError
from resources.escrow import Escrow, replay

POLICY = Path(__file__).parents[1] / "policies" / "admission.yaml"
STEPS = (
    "enqueued", "enlisted", "decided", "logged", "applied", "committed", "told", "started",
    "ended", "settled",
)  # fmt: skip
HOLD = NANO // 100


def policy() -> Policy:
    """The shipped policy with few lanes, so that runs wait."""
    mapping = yaml.safe_load(POLICY.read_text()) | {"peaks": [], "throttles": []}
    return Policy.parse(mapping)


class _Costs:
    """What ended runs cost: read from the queue folder, as the ledger would have it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of_run(self, run_id: str) -> dict[str, Decimal]:
        path = self._folder / "ended" / run_id
        return {"ingest": Decimal(path.read_text())} if path.exists() else {}

    def recent(self, since: float) -> dict[Any, Any]:
        return {}


def _queue(folder: Path, state: str) -> list[str]:
    return sorted(path.name for path in (folder / state).iterdir())


def _start(folder: Path, run_id: str) -> None:
    """The daemon: starts what is queued and lifted, once; the log shows every start."""
    try:
        os.rename(folder / "lifted" / run_id, folder / "started" / run_id)
    except FileNotFoundError:
        return
    with open(folder / "starts.log", "a") as log:
        log.write(f"{run_id}\n")


def _live(folder: Path, url: str, seed: int, last: int, victim: str | None, nth: int) -> None:
    """One life of the host: submit, decide, tell, run, settle, until killed or all is done."""
    seen: Counter[str] = Counter()

    def reached(step: str) -> None:
        seen[step] += 1
        if step == victim and seen[step] == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    rng = random.Random(seed)
    escrow = Escrow(
        AdmissionStore(url), policy(), "prod", _Costs(folder), load=Load, reached=reached
    )
    shape = Shape("backfill", "ingest", (Quote("asked", (("ingest", HOLD),), 60.0),))
    for _ in range(400):
        known = set(_queue(folder, "queued") + _queue(folder, "lifted"))
        known |= set(_queue(folder, "started") + _queue(folder, "ended"))
        fresh = [f"run-{n:05d}" for n in range(last) if f"run-{n:05d}" not in known][:2]
        for run_id in fresh:  # the queue holds it before admission hears of it
            (folder / "queued" / run_id).touch()
            reached("enqueued")
            escrow.submit(Request(run_id, shape, time.time()))
        queued = _queue(folder, "queued")
        states = escrow.store.states(queued)
        lost = [Request(r, shape, time.time()) for r in queued if r not in states]
        escrow.sweep(lambda r: "succeeded" if (folder / "ended" / r).exists() else "running")
        escrow.decide(lost)
        for row in escrow.store.untold("prod"):
            if row["state"] == "admitted" and (folder / "queued" / row["run_id"]).exists():
                os.rename(folder / "queued" / row["run_id"], folder / "lifted" / row["run_id"])
                reached("told")
            escrow.store.told(row["run_id"], row["pass_id"])
        for run_id in _queue(folder, "lifted"):
            _start(folder, run_id)
            reached("started")
        for run_id in _queue(folder, "started"):
            cost = Decimal(int(HOLD * rng.uniform(0.2, 1.0))) / NANO
            draft = folder / f"{run_id}.tmp"
            draft.write_text(str(cost))
            os.rename(draft, folder / "ended" / run_id)
            (folder / "started" / run_id).unlink()
            reached("ended")
            escrow.settle(run_id)
        if len(_queue(folder, "ended")) == last:
            escrow.sweep(lambda r: "succeeded" if (folder / "ended" / r).exists() else "running")
            return


def _unbalanced(folder: Path, url: str, last: int) -> int:
    """Runs whose settled money is not what they cost, plus money that is still held."""
    store = AdmissionStore(url)
    names = [f"run-{n:05d}" for n in range(last)]
    booked = store.booked(names)
    costs = {n: int(Decimal((folder / "ended" / n).read_text()) * NANO) for n in names}
    wrong = sum(booked.get(n, {}) != {"ingest": cost} for n, cost in costs.items())
    return wrong + len(store.holders("prod"))


def _outage(folder: Path, url: str) -> tuple[int, int]:
    """The store is away: (runs that started meanwhile, runs that started once it was back)."""
    path = Path(url.removeprefix("sqlite:///"))
    store = AdmissionStore(url, timeout_s=0.2)
    escrow = Escrow(store, policy(), "prod", _Costs(folder), load=Load)
    shape = Shape("backfill", "ingest", (Quote("asked", (("ingest", HOLD),), 60.0),))
    requests = [Request(f"outage-{n}", shape, time.time()) for n in range(2)]
    blocker = AdmissionStore(url)
    started = 0
    with blocker.alone():  # whoever holds the write lock makes the store unusable for the rest
        for request in requests:
            with suppress(StoreError):
                started += escrow.submit(request).starts
    assert path.exists()
    resumed = sum(d.starts for d in escrow.decide(requests).values())
    for request in requests:
        escrow.settle(request.id)
    return started, resumed


def run(quick: bool, seed: int = 3) -> dict[str, float | int | str]:
    """Kill the host `kills` times, each step in turn, then let it finish and count."""
    kills_wanted = 20 if quick else 120
    last = kills_wanted * 3
    rng = random.Random(seed)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for state in ("queued", "lifted", "started", "ended"):
            (folder / state).mkdir()
        (folder / "starts.log").touch()
        url = f"sqlite:///{folder}/admission.db"
        kills, lives = 0, 0
        by_step: Counter[str] = Counter()
        while kills < kills_wanted and lives < kills_wanted * 3:
            victim = STEPS[lives % len(STEPS)]
            grown = min(last, 3 * (kills + 1))
            args = (folder, url, rng.randrange(1 << 30), grown, victim, rng.randint(1, 2))
            child = context.Process(target=_live, args=args)
            child.start()
            child.join(120)
            killed = child.exitcode == -signal.SIGKILL
            kills, lives = kills + killed, lives + 1
            by_step[victim] += killed
        child = context.Process(target=_live, args=(folder, url, 1, last, None, 0))
        child.start()
        child.join(300)
        starts = Counter((folder / "starts.log").read_text().split())
        ended = set(_queue(folder, "ended"))
        lost = sum(f"run-{n:05d}" not in ended for n in range(last))
        unbalanced = _unbalanced(folder, url, last) if not lost else -1
        away, resumed = _outage(folder, url)
        replayed = replay(AdmissionStore(url))
    return {
        "kills": kills,
        "steps_killed_at": sum(count > 0 for count in by_step.values()),
        "runs": last,
        "double_starts": sum(count > 1 for count in starts.values()),
        "lost_runs": lost,
        "unbalanced": unbalanced,
        "started_while_store_away": away,
        "resumed_after": resumed,
        "passes_logged": replayed.passes,
        "replayed_differently": len(replayed.differing),
    }
