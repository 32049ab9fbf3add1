"""What touches the world: tables, ledger, meter, queue. This module holds the settings.

Belongs here: `Settings`, the one reader of the environment. Does not: anything that opens a
file or a connection at import.

Every environment (dev, staging, prod) has its own folder under the data root, so that lakes,
ledgers and budgets are apart by construction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from forecast_core.frequency import DAILY, Frequency

Environment = Literal["dev", "staging", "prod"]
Executor = Literal["local", "ray"]
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting that cannot be used: names the variable, its value and what it may be."""


@dataclass(frozen=True)
class Settings:
    """Everything that differs between installations; immutable once read."""

    environment: Environment = "dev"
    data_root: str = str(PROJECT_ROOT / ".forecast")
    source: str = "demo"
    m5_dir: Path = PROJECT_ROOT / "data" / "m5"
    as_of: date | None = None
    horizon: int = 28
    ledger_url: str | None = None
    price_card: Path = PROJECT_ROOT / "policies" / "price_card.yaml"
    segment_policy: Path = PROJECT_ROOT / "policies" / "segments.yaml"
    admission_policy: Path = PROJECT_ROOT / "policies" / "admission.yaml"
    capacity_plan: Path = PROJECT_ROOT / "policies" / "capacity.yaml"
    lifecycle_policy: Path = PROJECT_ROOT / "policies" / "lifecycle.yaml"
    reconciliation_policy: Path = PROJECT_ROOT / "policies" / "reconciliation.yaml"
    executor: Executor = "local"
    ray_address: str | None = None
    demo_series: int = 600
    demo_stores: int = 3
    demo_days: int = 730
    demo_seed: int = 7

    @classmethod
    def from_environment(
        cls, env: Mapping[str, str] | None = None, source: str | None = None
    ) -> Settings:
        """Read FORECAST_* (and M5_DIR); unset variables keep the defaults above.

        `source` goes before FORECAST_SOURCE: a command's own option.

        Raises:
            SettingsError: a value cannot be parsed, with the variable's name and the remedy.
        """
        env = os.environ if env is None else env
        as_of = env.get("FORECAST_AS_OF")
        return cls(
            environment=_one_of(env, "FORECAST_ENV", cls.environment, Environment),
            data_root=_root(env.get("FORECAST_DATA", cls.data_root)),
            source=_source(source or env.get("FORECAST_SOURCE", cls.source)),
            m5_dir=Path(env.get("M5_DIR", cls.m5_dir)).expanduser().resolve(),
            as_of=_day("FORECAST_AS_OF", as_of) if as_of else None,
            horizon=_whole(env, "FORECAST_HORIZON", cls.horizon, at_least=1),
            ledger_url=env.get("FORECAST_LEDGER_URL"),
            price_card=Path(env.get("FORECAST_PRICE_CARD", cls.price_card)),
            segment_policy=Path(env.get("FORECAST_SEGMENT_POLICY", cls.segment_policy)),
            admission_policy=Path(env.get("FORECAST_ADMISSION_POLICY", cls.admission_policy)),
            capacity_plan=Path(env.get("FORECAST_CAPACITY_PLAN", cls.capacity_plan)),
            lifecycle_policy=Path(env.get("FORECAST_LIFECYCLE_POLICY", cls.lifecycle_policy)),
            reconciliation_policy=Path(
                env.get("FORECAST_RECONCILIATION_POLICY", cls.reconciliation_policy)
            ),
            executor=_one_of(env, "FORECAST_EXECUTOR", cls.executor, Executor),
            ray_address=env.get("FORECAST_RAY_ADDRESS"),
            demo_series=_whole(env, "FORECAST_DEMO_SERIES", cls.demo_series, at_least=1),
            demo_stores=_whole(env, "FORECAST_DEMO_STORES", cls.demo_stores, at_least=1),
            demo_days=_whole(env, "FORECAST_DEMO_DAYS", cls.demo_days, at_least=60),
            demo_seed=_whole(env, "FORECAST_DEMO_SEED", cls.demo_seed, at_least=0),
        )

    def adopt(self) -> None:
        """Make these the settings of this process and of those it starts.

        For a command whose options override the environment: partitions are declared when the
        code location is imported, and steps may run in processes of their own.
        """
        os.environ.update(self._chosen())

    def _chosen(self) -> dict[str, str]:
        as_of = {"FORECAST_AS_OF": self.as_of.isoformat()} if self.as_of else {}
        return as_of | {
            "FORECAST_SOURCE": self.source,
            "FORECAST_HORIZON": str(self.horizon),
            "M5_DIR": str(self.m5_dir),
        }

    def told(self) -> dict[str, str]:
        """The variables that say which data a step on another machine works on: no secrets."""
        where = {"FORECAST_ENV": self.environment, "FORECAST_DATA": self.data_root}
        return where | self._chosen()

    @property
    def home(self) -> str:
        """The folder (or bucket prefix) of this environment."""
        return f"{self.data_root}/{self.environment}"

    @property
    def dataset(self) -> str:
        """A short name of the source: data sets in one environment do not mix."""
        path = Path(self.source)
        return path.parent.name if path.stem == "mapping" and path.parent.name else path.stem

    @property
    def lake_root(self) -> str:
        """Where the Delta tables of this environment and source are."""
        return f"{self.home}/{self.dataset}/lake"

    @property
    def state_dir(self) -> Path:
        """Local folder of what must be transactional (ledger, holds) when no server is named."""
        return (
            Path(PROJECT_ROOT / ".forecast" / self.environment)
            if "://" in self.home
            else Path(self.home)
        )

    @property
    def stage(self) -> Path:
        """Local folder where the tables of a mapped source are kept sorted by store."""
        return self.state_dir / self.dataset / "staged"

    @property
    def factors(self) -> Path:
        """Local folder of factored reconciliations; what is lost there is made again."""
        return self.state_dir / self.dataset / "factors"

    @property
    def ledger(self) -> str:
        """SQLAlchemy URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.state_dir / 'ledger.db'}"

    @property
    def admission(self) -> str:
        """SQLAlchemy URL of admission: beside the ledger on a server, else a file of its own."""
        if self.ledger_url and not self.ledger_url.startswith("sqlite"):
            return self.ledger_url
        return f"sqlite:///{self.state_dir / 'admission.db'}"

    @property
    def marts(self) -> Path:
        """The DuckDB file that dbt builds."""
        return self.state_dir / self.dataset / "marts.duckdb"


@dataclass(frozen=True)
class DataSpan:
    """The days that the data covers, and the one `as_of` that every age is counted from.

    The wall clock is for budgets and charges only: else a data set of 2016 would be all cold
    and always stale.
    """

    first: date
    last: date
    as_of: date
    frequency: Frequency = DAILY

    def days(self, periods: int) -> int:
        """That many periods, in days."""
        return periods * self.frequency.step


def write_events_in_batches() -> None:
    """Let Dagster hand a range's events to its store together, unless the environment says how."""
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "200")


def threads_wait_asleep() -> None:
    """Let OpenMP's threads sleep while they wait for one another, unless the environment says how.

    They spin by default and are charged for it, twice the work itself or more where another process
    holds a core (`python -m benchmarks fit_threads`). OpenMP reads it once, when it is loaded:
    before LightGBM is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def with_environment(text: str) -> str:
    """`text` with each `${NAME}` replaced by that variable: secrets stay out of files.

    Raises:
        SettingsError: a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise SettingsError(f"{text!r} needs the variable {match[1]}; set it")
        return found

    return re.sub(r"\$\{(\w+)\}", value, text)


def _one_of(env: Mapping[str, str], name: str, default: Any, choices: Any) -> Any:
    """`choices`: a Literal."""
    value = env.get(name, default)
    if value not in get_args(choices):
        raise SettingsError(f"{name}={value!r} is unknown; use one of {get_args(choices)}")
    return value


def _root(text: str) -> str:
    return text.rstrip("/") if "://" in text else str(Path(text).expanduser().resolve())


def _source(text: str) -> str:
    """A mapping's path is kept absolute: a step may run in another folder."""
    path = Path(text).expanduser()
    return str(path.resolve()) if path.suffix in (".yaml", ".yml") else text


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{name}={text!r} is no date; write it as YYYY-MM-DD") from None


def _whole(env: Mapping[str, str], name: str, default: int, *, at_least: int) -> int:
    text = env.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise SettingsError(f"{name}={text!r} is no whole number") from None
    if value < at_least:
        raise SettingsError(f"{name}={value} is too small; use {at_least} or more")
    return value
