"""Two mappings of one name: the second is refused before anything is mixed, unless it is meant."""

import shutil
from pathlib import Path

MAPPING = "sales: {files: FILE, date: day, store_id: shop, item_id: sku, units: qty}\n"


def _shop(folder: Path, store: str) -> str:
    folder.mkdir()
    rows = [f"2024-01-{day:02},{store},apple,{day % 4}" for day in range(1, 31)]
    (folder / "sales.csv").write_text("\n".join(["day,shop,sku,qty", *rows]) + "\n")
    (folder / "shop.yaml").write_text(MAPPING.replace("FILE", "sales.csv"))
    return str(folder / "shop.yaml")


def test_a_lake_is_of_one_mapping(tmp_path: Path, own_installation) -> None:
    first, second = _shop(tmp_path / "a", "north"), _shop(tmp_path / "b", "north")
    done = own_installation.forecast("source", "load", first)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    for command in (
        ("source", "check", second),
        ("source", "load", second),
        ("run", "--no-land", "--source", second),
    ):
        held = own_installation.forecast(*command)
        said = " ".join((held.stdout + held.stderr).split())
        assert held.returncode == 3, said[-2000:]
        assert f"holds what {first} landed: call this mapping otherwise" in said

    assert own_installation.forecast("source", "load", first).returncode == 0
    moved = tmp_path / "c"
    shutil.move(tmp_path / "a", moved)
    again = own_installation.forecast(
        "source", "load", str(moved / "shop.yaml"), "--accept-changes"
    )
    assert again.returncode == 0, again.stdout[-2000:] + again.stderr[-4000:]
    assert own_installation.forecast("source", "load", str(moved / "shop.yaml")).returncode == 0
