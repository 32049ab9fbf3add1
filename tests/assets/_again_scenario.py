"""One asset made again under each policy named, so many times. Run as a program in a finished
installation.

`_again_scenario.py ASSET FIRST LAST SETTING TIMES POLICY...` prints, for each run, the metadata of
the materialization and where the table's rows were written to.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from forecast_assets.batch import Stage, run_stages
from forecast_assets.definitions import build_defs
from resources import Settings
from resources.wiring import lake_of


def main(asset: str, first: str, last: str, setting: str, times: int, policies: list[str]) -> None:
    """Run them one after the other, in this process."""
    instance = dg.DagsterInstance.get()
    told = []
    for policy in policies:
        changed: dict[str, Any] = {setting: Path(policy)}
        settings = replace(Settings.from_environment(), **changed)
        for time in range(times):
            stage = Stage(f"{asset} again", (asset,), first, last)
            (done,) = run_stages(build_defs(settings), instance, [stage])
            out = Path(os.environ["OUT"]) / f"{asset}_{Path(policy).stem}_{time}.parquet"
            lake_of(settings).table(asset).read().frame.collect().write_parquet(out)
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
            assert event is not None and event.run_id == done.run_id
            assert event.asset_materialization is not None
            facts = {k: v.value for k, v in event.asset_materialization.metadata.items()}
            told.append({"policy": Path(policy).stem, "rows": str(out), "metadata": facts})
    print(json.dumps(told, default=str))


main(*sys.argv[1:5], int(sys.argv[5]), sys.argv[6:])
