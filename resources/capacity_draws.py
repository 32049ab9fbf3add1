"""Draws of the future in parallel processes.

Belongs here: handing draws to processes and their figures back. Does not: a draw
(`forecast_core.capacity.outcomes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from forecast_core.capacity.outcomes import Draw, Job, draw

Told = Callable[[], None]


def run_draws(
    jobs: Sequence[Job], *, workers: int | None = None, told: Told = lambda: None
) -> list[Draw]:
    """Every job's draw, in order of the jobs; `told` is called as each is done.

    One process of its own for each core (at most one a job); equal seeds give equal draws however
    many there are.
    """
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers < 2:
        found = []
        for job in jobs:
            found.append(draw(job))
            told()
        return found
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(draw, job): index for index, job in enumerate(jobs)}
        done: dict[int, Draw] = {}
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            told()
    return [done[index] for index in range(len(jobs))]
