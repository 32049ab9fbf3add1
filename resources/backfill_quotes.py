"""What a backfill takes before it runs: partitions, rows, bytes to rehydrate, CPU, money, minutes.

Belongs here: putting the estimator, the parts of the lake and the price card together; bringing
cold sources up once. Does not: the estimator (`forecast_core.cost.estimate`), what is worth it
(`forecast_core.storage.staleness`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from forecast_core.cells import Cells
from forecast_core.cost.estimate import OVERHEAD, Ask, Estimator, NoHistory, observations
from forecast_core.cost.price_card import Rates
from forecast_core.schema import TABLES
from forecast_core.storage.lifecycle import Part
from forecast_core.storage.placement import Reader
from forecast_core.storage.tiers import Tier
from resources.ledger import Ledger
from resources.lifecycle import Moved, Mover, parts_of
from resources.partition_keys import decode

HISTORY = timedelta(days=120)


@dataclass(frozen=True)
class BackfillQuote:
    """What a backfill takes as one run; `money` expected, `money_upper` at 95 %. Retrieval, and the
    run's own start and end, are part of both.

    `basis` says what it rests on.
    """

    asset: str
    partitions: int
    rows: int
    bytes_to_rehydrate: int
    cpu_s: float
    money: float
    money_upper: float
    minutes: float
    currency: str
    basis: str

    def line(self) -> str:
        """One line, for a log or a terminal."""
        return (
            f"{self.asset}: {self.partitions} partitions, {self.rows:,} rows, "
            f"{self.bytes_to_rehydrate:,} bytes to rehydrate, {self.cpu_s:.1f} CPU-s, "
            f"{self.money:.6f} {self.currency} (at most {self.money_upper:.6f} in 19 of 20), "
            f"{self.minutes:.1f} minutes; {self.basis}"
        )


class BackfillQuoter:
    """Quotes from what runs have cost; fitted once."""

    def __init__(
        self,
        ledger: Ledger,
        mover: Mover,
        rates: Rates,
        environment: str,
        readers: Sequence[Reader],
    ) -> None:
        self._mover, self._rates = mover, rates
        self._readers = readers
        first = (datetime.now(UTC) - HISTORY).date()
        steps = ledger.settlements(first=first)
        self._steps = steps.filter(steps["x_environment"] == environment)
        self._fits: dict[str, Estimator | None] = {}

    def quote(self, asset: str, keys: Sequence[str], *, rehydrate: bool = True) -> BackfillQuote:
        """The quote of making those partitions again.

        Raises:
            ValueError: a key that is not spelt as the asset's partitions are, or no such asset.
        """
        _check_dataset(asset)
        rows = self._rows(asset, keys)
        cold = self.cold_sources(asset, keys) if rehydrate else []
        size = sum(part.bytes for part in cold)
        ask = Ask(asset, partitions=len(keys), rows=float(rows) if rows else None)
        retrieval = sum(self._retrieval(part) for part in cold)
        money, upper, basis = self._estimate("money", ask)
        cpu, _, _ = self._estimate("cpu_s", ask)
        wall, _, _ = self._estimate("wall_s", ask)
        return BackfillQuote(
            asset, len(keys), rows, size, cpu, money + retrieval, upper + retrieval, wall / 60,
            self._rates.currency, basis,
        )  # fmt: skip

    def cold_sources(self, asset: str, keys: Sequence[str]) -> list[Part]:
        """The cold parts that the asset would read for those partitions, each once."""
        found: dict[str, Part] = {}
        for table, cells in self.windows(asset, keys).items():
            held = self._mover.table(table)
            for part in parts_of(held):
                met = any(part.meets(cells.first, cells.last, s) for s in cells.stores or (None,))
                if part.tier is Tier.COLD and met:
                    found[part.name] = part
        return list(found.values())

    def windows(self, asset: str, keys: Sequence[str]) -> dict[str, Cells]:
        """What the asset reads of each source for those partitions: one window for all of them."""
        _check_dataset(asset)
        cells = _cover(asset, keys)
        if cells is None:
            return {}
        mine = [reader for reader in self._readers if reader.name == asset]
        return {reader.table: cells.back(reader.to_age) for reader in mine}

    def prefetch(self, asset: str, keys: Sequence[str], until: date) -> list[Moved]:
        """Rehydrate the cold sources of a backfill once, for all its partitions."""
        moved: list[Moved] = []
        for table, cells in self.windows(asset, keys).items():
            held = self._mover.table(table)
            if held.exists():
                tier = self._mover.policy.rehydrate_tier
                moved += self._mover.rehydrate(held, cells, tier, until, f"a backfill of {asset}")
        return moved

    def _rows(self, asset: str, keys: Sequence[str]) -> int:
        cells = _cover(asset, keys)
        table = self._mover.table(asset)
        if cells is None or not table.exists():
            return 0
        stores = cells.stores or (None,)
        parts = [
            p for p in parts_of(table) if any(p.meets(cells.first, cells.last, s) for s in stores)
        ]
        return sum(part.rows for part in parts)

    def _retrieval(self, part: Part) -> float:
        gib = part.bytes / 2**30 * float(self._rates.of(f"retrieval_gib/{part.tier}"))
        return gib + part.files * float(self._rates.of(f"read_request/{part.tier}"))

    def _estimate(self, target: str, ask: Ask) -> tuple[float, float, str]:
        if target not in self._fits:
            try:
                self._fits[target] = Estimator(observations(self._steps, target))
            except NoHistory:
                self._fits[target] = None
        fit = self._fits[target]
        if fit is None:
            return 0.0, 0.0, "nothing was measured yet: run one partition for a quote"
        made = fit.estimate(ask)
        expected, upper = made.expected, made.upper
        run = Ask(OVERHEAD, partitions=2)  # one run: before its step and after it
        if fit.novelty(run) != "new asset":
            around = fit.estimate(run)
            expected, upper = expected + around.expected, upper + around.upper
        return expected, upper, f"{made.novelty}, {made.errors} runs known"


def _check_dataset(asset: str) -> None:
    if asset not in TABLES:
        raise ValueError(f"no dataset is named {asset!r}; use one of {', '.join(TABLES)}")


def _cover(asset: str, keys: Sequence[str]) -> Cells | None:
    """The days and stores of all keys together, gaps included."""
    each = [decode([key], TABLES[asset].cut).cells for key in keys]
    held = [cells for cells in each if cells is not None]
    if not held:
        return None
    stores = {store for cells in held for store in cells.stores or ()}
    first, last = min(c.first for c in held), max(c.last for c in held)
    return Cells(first, last, tuple(sorted(stores)) or None)
