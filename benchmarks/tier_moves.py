"""kill -9 at random moments: two movers, an appending writer and a looping reader on one table.

Belongs here: killing, starting again, counting what was lost. Does not: the work
(`_tier_moves_work`). Episodes start from a fresh table so that each kill stays cheap; widening
moves (months to a year), returns and compactions are drawn at random. On disk and on an S3 endpoint
on loopback. The control is the same harness around a mover that copies and then deletes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from benchmarks import _moto_server
from benchmarks import _tier_moves_work as work

DISK_KILLS, S3_KILLS, CONTROL_KILLS = 300, 40, 30
QUICK = 10  # times fewer
KILLS_IN_EPISODE = 15
PAUSE = {False: (0.05, 1.1), True: (0.3, 3.0)}  # by whether on S3: seconds between kills
FAILURES = ("lost", "doubled", "bad_reads")


def run(quick: bool, seed: int = 0) -> dict[str, float | int]:
    """Kill, start again, look."""
    began = time.monotonic()
    os.environ["POLARS_MAX_THREADS"] = "1"  # of the processes that are killed
    shrink = QUICK if quick else 1
    disk = _campaign(DISK_KILLS // shrink, seed)
    with _moto_server.endpoint() as environment:
        s3 = _campaign(max(S3_KILLS // shrink, 5), seed + 1, environment=environment)
    control = _campaign(max(CONTROL_KILLS // shrink, 10), seed + 2, naive=True)
    both = disk + s3
    return {
        "kills": disk["kills"],
        "s3_kills": s3["kills"],
        "moves": both["moves"],
        "widening_moves": both["widened"],
        "writes": both["writes"],
        "reads": both["reads"],
        "lost": both["lost"],
        "doubled": both["doubled"],
        "bad_reads": both["bad_reads"],
        "damaged_files": both["damaged"],
        "died_moves_settled": both["settled"],
        "unsettled": both["unsettled"],
        "control_kills": control["kills"],
        "control_failures": sum(control[name] for name in FAILURES),
        **{f"control_{name}": control[name] for name in FAILURES},
        "s3_moves": s3["moves"],
        "s3_reads": s3["reads"],
        "wall_s": time.monotonic() - began,
        "seed": seed,
    }


def _campaign(kills: int, seed: int, **setting: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    episode = 0
    while total["kills"] < kills:
        wanted = min(KILLS_IN_EPISODE, kills - total["kills"])
        total += _episode(wanted, seed * 1000 + episode, **setting)
        episode += 1
    return total


def _episode(
    kills: int, seed: int, naive: bool = False, environment: dict[str, str] | None = None
) -> Counter[str]:
    folder = Path(tempfile.mkdtemp(prefix="moves"))
    root = f"s3://{_moto_server.BUCKET}/e{seed}" if environment else str(folder / "lake")
    stage = work.Stage(root, folder, seed, naive, environment or {})
    try:
        return _play(stage, kills, random.Random(seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _play(stage: work.Stage, kills: int, rng: random.Random) -> Counter[str]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks._tier_moves_work"])
    work.prepare(stage)

    def start(target: Callable[..., None], *args: int) -> ForkServerProcess:
        process = context.Process(target=target, args=(stage, *args), daemon=True)
        process.start()
        return process

    roles: list[tuple[Callable[..., None], tuple[int, ...]]] = [
        (work.move, (1,)),
        (work.move, (2,)),
        (work.append, ()),
        (work.look, ()),
    ]
    running = [start(target, *args) for target, args in roles]
    done: Counter[str] = Counter()
    while done["kills"] < kills:
        time.sleep(rng.uniform(*PAUSE[bool(stage.environment)]))
        index = rng.choice([0, 0, 1, 1, 2])  # the reader is not killed: it has to see everything
        victim = running[index]
        assert victim.pid is not None
        if victim.is_alive():
            os.kill(victim.pid, signal.SIGKILL)
            done["kills"] += 1
        else:
            done["crashed"] += 1
        victim.join()
        running[index] = start(roles[index][0], *roles[index][1])
    for process in running:
        process.kill()
        process.join()
    return done + _outcome(stage)


def _outcome(stage: work.Stage) -> Counter[str]:
    """What the table holds when everybody is dead and died moves are settled."""
    from resources.scrub import scrub

    mover = stage.mover()
    table = mover.lake.table(work.STOCK)
    done = Counter(
        {
            name: stage.counts(name).stat().st_size if stage.counts(name).exists() else 0
            for name in ("moves", "widened", "reads", "bad_reads")
        }
    )
    done["moves"] += done["widened"]
    done["writes"] = work.acknowledged(stage)
    if not stage.naive:
        done["settled"] = mover.settle(table, timedelta(0))
        done["unsettled"] = len(mover.books.open_moves(table.uri))
        done["damaged"] = len(scrub(table, mover.books).damages)
    done["lost"], done["doubled"] = work.compare(table, done["writes"])
    return done
