"""`python -m benchmarks NAME [--quick] [--json] [--seed N]`: run one benchmark; no NAME lists them.

Belongs here: finding, running and printing. Does not: any measurement.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import sys

PINNED = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "passive",  # as the product's own processes: see `resources`
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "2",
    "NUMBA_NUM_THREADS": "1",
}


def names() -> list[str]:
    """The benchmarks: every public module of this package."""
    found = pkgutil.iter_modules([os.path.dirname(__file__)])
    return sorted(module.name for module in found if not module.name.startswith("_"))


def main(argv: list[str] | None = None) -> int:
    """Run one benchmark and print its figures as a table, and as one JSON line on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=[*names(), "all"], help="which benchmark")
    parser.add_argument("--quick", action="store_true", help="a smaller scale, never the proof")
    parser.add_argument("--json", action="store_true", help="end with one flat JSON line")
    parser.add_argument("--seed", type=int, help="for the benchmarks that draw at random")
    parser.add_argument("--seeds", type=int, help="number of seeds, for those that sweep them")
    args = parser.parse_args(argv)
    if args.name is None:
        print("\n".join(names()))
        return 0
    for name, value in PINNED.items():  # a spinning thread pool fakes results on busy cores
        os.environ.setdefault(name, value)
    for name in names() if args.name == "all" else [args.name]:
        _run(name, args)
    return 0


def _run(name: str, args: argparse.Namespace) -> None:
    run = importlib.import_module(f"benchmarks.{name}").run
    accepted = inspect.signature(run).parameters
    asked = {key: getattr(args, key) for key in ("seed", "seeds") if getattr(args, key) is not None}
    for key in [key for key in asked if key not in accepted]:
        print(f"{name} takes no --{key}; ignored", file=sys.stderr)
        asked.pop(key)
    figures = run(quick=args.quick, **asked)
    width = max(len(key) for key in figures)
    print(f"\n{name}{' (quick)' if args.quick else ''}")
    for key, value in figures.items():
        print(
            f"  {key:<{width}}  {value:,.4g}"
            if isinstance(value, float)
            else f"  {key:<{width}}  {value}"
        )
    if args.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
