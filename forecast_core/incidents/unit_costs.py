"""Unit cost by series and day: money over volume over price, read from a FOCUS ledger.

Belongs here: turning charges into the daily series (pipeline x forecaster x segment group x
environment) that `regressions` watches, whichever fill conventions the ledger follows. Does not:
deciding what is a regression, pricing charges (`cost`), or reading files.

Raw cost moves with growth, promotions and price cards; what a regression moves is the quantity
spent for each series forecast. So each charge is restated at a reference price of its own SKU,
corrections are netted into the period they correct, and the day's sum is divided by its volume.

Fill conventions, in the order tried (the one used is named in `basis`):
* volume: `x_series`, `x_items`, `x_rows` and the like (`_VOLUME`), or `ConsumedQuantity` where its
  unit counts what was served (series, items, forecasts, rows, ...); without one, real cost per run
  (`x_run_id`), and without runs per day. A basis without a volume cannot tell growth from waste,
  so the common movement of all series is taken out of it instead.
* price: `ListUnitPrice`, `ContractedUnitPrice`, or cost over `PricingQuantity`. A price that
  changes with nearly every row is no price card, and is ignored.
* money: `EffectiveCost`, `BilledCost`, `ContractedCost`, `ListCost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

SERIES = ("pipeline", "forecaster", "segment_group", "environment")
NONE = "-"

_MONEY = ("EffectiveCost", "BilledCost", "ContractedCost", "ListCost")
_LIST_PRICE = ("ListUnitPrice", "ContractedUnitPrice", "x_unit_price")
_VOLUME = (
    "x_series",
    "x_item_stores",
    "x_items",
    "x_forecasts",
    "x_predictions",
    "x_volume",
    "x_rows",
)
# A price-list line; never SkuPriceId, which names the line in one entry of the card.
_SKU = ("SkuId", "SkuMeter", "x_meter", "x_resource", "ChargeDescription")
_VERSION = ("x_forecaster_version",)
_CHANGE = ("x_code_version", "x_config_version")
_EVENT = ("x_event", "x_planned_event", "x_promotion")
_PLACE = ("x_store_id", "x_store", "x_partition", "x_partition_key", "x_cutoff")
# A consumed unit that counts what was served; of resources it names one of none of these.
_SERVED = ("series", "item", "forecast", "row", "prediction", "store", "record", "node")
_LABELS: dict[str, tuple[str, ...]] = {
    "pipeline": ("x_pipeline", "pipeline", "ServiceName"),
    "forecaster": ("x_forecaster", "forecaster"),
    "segment_group": ("x_segment_group", "x_segment", "segment_group", "segment"),
    "environment": ("x_environment", "environment", "SubAccountName", "SubAccountId"),
}
_MAX_PRICE_CHANGES_PER_WEEK = 1.0


@dataclass(frozen=True)
class UnitCosts:
    """Daily series, and how they were read.

    `frame`: pipeline, forecaster, segment_group, environment, day (Date), cost (money), real (at
    reference prices), volume, runs, unit (real / volume; null where undefined), version (of
    the forecaster), change (code and configuration versions, joined), event (name
    of the planned event, or empty). Sorted by series and day.
    `basis`: what volume and price were read from. `skipped`: series-days without a unit, by reason.
    """

    frame: pl.DataFrame
    basis: str
    has_volume: bool
    has_price: bool
    skipped: dict[str, int]


class LedgerError(ValueError):
    """The ledger lacks what a unit cost needs; the message names the column and the remedy."""


def daily(ledger: pl.DataFrame, *, raw: bool = False) -> UnitCosts:
    """Daily unit costs of a FOCUS ledger. `raw`: plain money per day, as cost monitors watch it.

    Raises:
        LedgerError: no period column or no cost column.
    """
    rows, has_price = charges(ledger, at_reference_prices=not raw)
    if rows.is_empty():
        return UnitCosts(
            _empty(), "no charges", False, False, {"no charge with a period": len(ledger)}
        )
    has_volume = not raw and _volume_share(rows) >= 0.5
    volumes = _volumes(rows) if has_volume else _runs_as_volume(rows, raw=raw)
    frame = (
        rows.group_by(*SERIES, "day")
        .agg(
            pl.col("cost").sum(),
            pl.col("real").sum(),
            pl.col("run").n_unique().alias("runs"),
            # The label that most of the day's money was spent under, free of row order.
            pl.col("version").sort_by(pl.col("cost"), pl.col("version")).last(),
            pl.col("change").sort_by(pl.col("cost"), pl.col("change")).last(),
            (pl.lit("") if raw else pl.col("event").max()).alias("event"),
        )
        .join(volumes, on=[*SERIES, "day"], how="left")
        .with_columns(
            unit=pl.when((pl.col("real") > 0) & (pl.col("volume") > 0)).then(
                pl.col("real") / pl.col("volume")
            )
        )
        .sort(*SERIES, "day")
    )
    return UnitCosts(
        frame, _basis(ledger, has_volume, has_price, raw), has_volume, has_price, _skipped(frame)
    )


def charges(ledger: pl.DataFrame, *, at_reference_prices: bool = True) -> tuple[pl.DataFrame, bool]:
    """The ledger's usage charges under one set of names, and whether prices could be told apart.

    Columns: SERIES, day, cost, real (at reference prices; equal to cost where there are none), run,
    asset, step, attempt, status, cost_class, place, version, change, event, sku, price, quantity,
    volume, rows. Same errors as `daily`.
    """
    ledger = _usage_only(ledger)
    day = _day(ledger)
    money = _first(ledger, _MONEY)
    if money is None:
        raise LedgerError(f"the ledger has no cost column; give one of {', '.join(_MONEY)}")
    rows = ledger.select(
        *(_label(ledger, name) for name in SERIES),
        day.alias("day"),
        _number(money).fill_null(0.0).alias("cost"),
        _text(ledger, "x_run_id").alias("run"),
        _text(ledger, "x_asset").alias("asset"),
        _text(ledger, "x_step_key").alias("step"),
        (_number("x_attempt") if _first(ledger, ("x_attempt",)) else pl.lit(1.0))
        .fill_null(1.0)
        .alias("attempt"),
        _text(ledger, "x_status").alias("status"),
        _text(ledger, "x_cost_class").alias("cost_class"),
        _joined(ledger, _PLACE).alias("place"),
        _joined(ledger, _VERSION).alias("version"),
        _joined(ledger, _CHANGE).alias("change"),
        _event(ledger).alias("event"),
        _sku(ledger).alias("sku"),
        _price(ledger, money).alias("price"),
        _quantity(ledger).alias("quantity"),
        _volume(ledger).alias("volume"),
        (_number("x_rows") if _first(ledger, ("x_rows",)) else pl.lit(None, pl.Float64)).alias(
            "rows"
        ),
    ).filter(pl.col("day").is_not_null())
    if rows.is_empty():
        return rows.with_columns(real=pl.col("cost")), False
    rows = _whole_runs(rows)
    has_price = at_reference_prices and _is_price_card(rows)
    return rows.with_columns(real=_at_reference_price() if has_price else pl.col("cost")), has_price


def _first(ledger: pl.DataFrame, names: Sequence[str]) -> str | None:
    """The first of `names` that is a column with a value in it."""
    for name in names:
        if name in ledger.columns and (ledger.is_empty() or not ledger[name].is_null().all()):
            return name
    return None


def _day(ledger: pl.DataFrame) -> pl.Expr:
    name = _first(ledger, ("ChargePeriodStart", "charge_period_start", "BillingPeriodStart", "day"))
    if name is None:
        raise LedgerError("the ledger has no ChargePeriodStart; a charge needs its period")
    dtype = ledger.schema[name]
    if dtype == pl.String:
        return pl.col(name).str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    return pl.col(name).cast(pl.Date)


def _label(ledger: pl.DataFrame, name: str) -> pl.Expr:
    found = _first(ledger, _LABELS[name])
    value = pl.col(found).cast(pl.String) if found else pl.lit(NONE)
    return value.fill_null(NONE).alias(name)


def _text(ledger: pl.DataFrame, name: str) -> pl.Expr:
    if name not in ledger.columns:
        return pl.lit(NONE)
    return pl.col(name).cast(pl.String).fill_null(NONE)


def _joined(ledger: pl.DataFrame, names: Sequence[str]) -> pl.Expr:
    present = [n for n in names if _first(ledger, (n,))]
    if not present:
        return pl.lit(NONE)
    return pl.concat_str([_text(ledger, n) for n in present], separator="|")


def _sku(ledger: pl.DataFrame) -> pl.Expr:
    line = _first(ledger, _SKU)
    return _joined(ledger, [*([line] if line else []), "PricingUnit"])


def _number(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def _event(ledger: pl.DataFrame) -> pl.Expr:
    """The name of the planned event that a charge falls in, empty outside one."""
    name = _first(ledger, _EVENT)
    if name is None:
        return pl.lit("")
    text = pl.col(name).cast(pl.String).fill_null("").str.strip_chars()
    return (
        pl.when(text.str.to_lowercase().is_in(["0", "false", "no", NONE]))
        .then(pl.lit(""))
        .otherwise(text)
    )


def _usage_only(ledger: pl.DataFrame) -> pl.DataFrame:
    """Taxes, credits and commitments bought say nothing of the work done."""
    if "ChargeCategory" not in ledger.columns:
        return ledger
    category = pl.col("ChargeCategory").cast(pl.String).fill_null("Usage")
    return ledger.filter(~category.is_in(["Tax", "Credit", "Purchase"]))


def _price(ledger: pl.DataFrame, money: str) -> pl.Expr:
    listed = _first(ledger, _LIST_PRICE)
    if listed is not None:
        return _number(listed)
    if _first(ledger, ("PricingQuantity",)):
        return _number(money) / _number("PricingQuantity")
    return pl.lit(None, dtype=pl.Float64)


def _quantity(ledger: pl.DataFrame) -> pl.Expr:
    name = _first(ledger, ("PricingQuantity", "ConsumedQuantity"))
    return _number(name) if name else pl.lit(None, dtype=pl.Float64)


def _volume(ledger: pl.DataFrame) -> pl.Expr:
    name = _first(ledger, _VOLUME)
    if name is not None:
        return _number(name)
    if _first(ledger, ("ConsumedQuantity",)) and _first(ledger, ("ConsumedUnit",)):
        unit = pl.col("ConsumedUnit").cast(pl.String).str.to_lowercase()
        counted = unit.str.contains_any(list(_SERVED)) & ~unit.str.contains("storage")
        return pl.when(counted).then(_number("ConsumedQuantity"))
    return pl.lit(None, dtype=pl.Float64)


def _whole_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """A run over midnight belongs whole to the day it began; ids that span longer are reused."""
    first, last = pl.col("day").min().over(*SERIES, "run"), pl.col("day").max().over(*SERIES, "run")
    crosses = (pl.col("run") != NONE) & (last - first == pl.duration(days=1))
    return rows.with_columns(day=pl.when(crosses).then(first).otherwise(pl.col("day")))


def _is_price_card(rows: pl.DataFrame) -> bool:
    """Whether the prices are a card's: few values a SKU, each holding for a while."""
    priced = rows.filter(pl.col("price") > 0, pl.col("quantity") > 0)
    if len(priced) < 0.8 * len(rows.filter(pl.col("cost") > 0)):
        return False
    weeks = max(((rows["day"].max() - rows["day"].min()).days + 1) / 7, 1.0)  # type: ignore[operator, union-attr]
    values = priced.group_by("sku").agg(pl.col("price").round_sig_figs(4).n_unique())["price"]
    return float(values.median() or 0) <= 2 + _MAX_PRICE_CHANGES_PER_WEEK * weeks  # type: ignore[arg-type]


def _at_reference_price() -> pl.Expr:
    """Cost restated at the SKU's median price, keeping the discount out of quantity's way."""
    reference = pl.col("price").filter(pl.col("price") > 0).median().over("sku")
    restated = pl.col("quantity") * reference
    # A correction often carries money and no quantity: it is restated by its SKU's price ratio.
    by_ratio = pl.col("cost") * (reference / pl.col("price"))
    return (
        pl.when(pl.col("quantity").is_not_null() & (pl.col("quantity") * pl.col("cost") >= 0))
        .then(restated)
        .otherwise(by_ratio)
        .fill_nan(None)
        .fill_null(pl.col("cost"))
    )


def _volume_share(rows: pl.DataFrame) -> float:
    """Share of series-days that carry a positive volume."""
    carried = rows.group_by(*SERIES, "day").agg((pl.col("volume") > 0).any().alias("has"))
    return float(carried["has"].mean() or 0.0)  # type: ignore[arg-type]


def _volumes(rows: pl.DataFrame) -> pl.DataFrame:
    """Series served a day: the meters and attempts of a run count it once, assets do not add up."""
    counted = rows.filter(pl.col("volume") > 0)
    # Without a place a run is a batch of its own; with one, a rerun of it serves nothing new.
    batch = ["place"] if counted["place"].n_unique() > 1 else ["run"]
    return (
        counted.group_by(*SERIES, "day", "asset", *batch)
        .agg(pl.col("volume").max())
        .group_by(*SERIES, "day", "asset")
        .agg(pl.col("volume").sum())
        .group_by(*SERIES, "day")
        .agg(pl.col("volume").max())
    )


def _runs_as_volume(rows: pl.DataFrame, *, raw: bool) -> pl.DataFrame:
    runs = pl.lit(1.0) if raw else pl.col("run").n_unique().cast(pl.Float64)
    return rows.group_by(*SERIES, "day").agg(runs.alias("volume"))


def _basis(ledger: pl.DataFrame, has_volume: bool, has_price: bool, raw: bool) -> str:
    if raw:
        return "raw cost a day"
    volume = "run"
    if has_volume:
        volume = _first(ledger, _VOLUME) or "ConsumedQuantity"
    return f"{'quantity at reference prices' if has_price else 'money'} per {volume}"


def _skipped(frame: pl.DataFrame) -> dict[str, int]:
    no_cost = frame.filter(pl.col("real") <= 0)
    no_volume = frame.filter(pl.col("real") > 0, pl.col("unit").is_null())
    reasons = {"cost not positive (correction?)": len(no_cost), "no volume": len(no_volume)}
    return {reason: n for reason, n in reasons.items() if n}


def _empty() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            **dict.fromkeys(SERIES, pl.String),
            "day": pl.Date,
            "cost": pl.Float64,
            "real": pl.Float64,
            "runs": pl.UInt32,
            "version": pl.String,
            "change": pl.String,
            "event": pl.String,
            "volume": pl.Float64,
            "unit": pl.Float64,
        }
    )
