"""Reading the policy files: YAML from disk, checked by the value object that owns it.

Belongs here: opening a file and naming it in the error. Does not: what a policy means
(`forecast_core`), nor its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")


class PolicyError(ValueError):
    """A policy file that cannot be used; the message names the file and the remedy."""


def load_policy(path: Path, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """Read `path` as YAML and hand the mapping to `parse`.

    Raises:
        PolicyError: no such file, no YAML, or `parse` refused it; the cause is chained.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyError(
            f"{path}: no such policy file; restore it from policies/ or set its FORECAST_* variable"
        ) from None
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise PolicyError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise PolicyError(f"{path}: expected a mapping at the top, found {type(content).__name__}")
    try:
        return parse(content)
    except ValueError as error:
        raise PolicyError(f"{path}: {error}") from error
