"""Factors between nights: whole or absent, never more than are to be kept."""

import os
from pathlib import Path

import pytest

from resources.factor_cache import FactorCache


def test_the_one_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path / "factors", 2)
    assert cache.get("a") is None
    for at, key in enumerate("ab"):
        cache.put(key, key.encode() * 5)
        os.utime(tmp_path / "factors" / f"{key}.npz", ns=(at, at))
    assert cache.get("a") == b"aaaaa"  # now b is the older one
    cache.put("c", b"c")
    assert [cache.get(key) for key in "abc"] == [b"aaaaa", None, b"c"]
    assert len(list((tmp_path / "factors").iterdir())) == 2


def test_a_key_cannot_leave_the_folder(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path / "factors", 2)
    for key in ("../a", "a/b", "", "A"):
        with pytest.raises(ValueError, match="is no key"):
            cache.put(key, b"")
