"""Measurements of the project beside its peers, one module a benchmark.

Each module has `run(quick: bool, ...) -> dict[str, float | int | str]`: flat, units in the key,
the scale among the figures. Threads are pinned before anything heavy is imported.
"""
