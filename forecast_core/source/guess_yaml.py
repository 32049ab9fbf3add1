"""A guess as a commented mapping file.

Belongs here: writing it down, each guess with its reason and how sure it is. Does not: guessing
(`forecast_core.source.guess`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forecast_core.source.guess_files import Guess


def as_yaml(found: Guess) -> str:
    """The guess as a commented mapping file."""
    import yaml

    lines = [
        "# yaml-language-server: $schema=./source_mapping.schema.json",
        "# Proposed by `forecast source init`; each guess says how sure it is. Correct it, then:",
        "# forecast source check THIS_FILE",
    ]
    for key, value in found.content.items():
        _write(lines, key, value, key, 0, found.notes, yaml)
    absent = [place for place in found.notes if not _has(found.content, place)]
    lines += [f"# {p}: {found.notes[p][1]} (sure: {found.notes[p][0]:.0%})" for p in absent]
    return "\n".join(lines) + "\n"


def _write(
    lines: list[str],
    key: str,
    value: Any,
    place: str,
    depth: int,
    notes: Mapping[str, Any],
    yaml: Any,
) -> None:
    note = f"  # {notes[place][1]} (sure: {notes[place][0]:.0%})" if place in notes else ""
    pad = "  " * depth
    if isinstance(value, dict) and depth < 1:
        lines.append(f"{pad}{key}:{note}")
        for name, inner in value.items():
            _write(lines, name, inner, f"{place}.{name}", depth + 1, notes, yaml)
        return
    text = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    ).strip()
    lines.append(f"{pad}{key}: {text.removesuffix('...').strip()}{note}")


def _has(content: Any, place: str) -> bool:
    for part in place.split("."):
        if isinstance(content, list):
            if int(part) >= len(content):
                return False
            content = content[int(part)]
        elif part not in content:
            return False
        else:
            content = content[part]
    return True
