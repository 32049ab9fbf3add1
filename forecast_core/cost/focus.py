"""The ledger in FOCUS 1.2: its columns, and what must hold among them.

Belongs here: the columns of the two history tables, the completion of a stored charge to a full
FOCUS row, and the invariants that an export must satisfy. Does not: rating (`cost`), storing
(`resources.ledger`) or writing files.

Source: the FinOps Open Cost and Usage Specification 1.2. Columns that FOCUS lacks carry the `x_`
prefix that it reserves for that. In FOCUS a SKU is a line of the price list, never an item.

Two Delta tables carry the history for analytics:

* `cost_ledger` (`LEDGER_COLUMNS`): one row a charge. Its grain is `x_charge_id`; a charge is one
  price-list line of one attempt of one step, for one owner (forecaster, segment group, store).
  Rows are never changed: a correction is another row with `ChargeClass = "Correction"` whose
  `x_corrects` names the charge. `sum(BilledCost)` over any cut is what that cut cost.
* `cost_steps` (`STEP_COLUMNS`): one row a settlement, with the raw quantities. An attempt has one
  settlement, or one per output for a step with several; `(x_run_id, x_step_key, x_attempt, x_part)`
  is the key and `x_charge_set` of a charge names its settlement.

`date` in both is the UTC day on which the charge period starts: both tables are cut by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from forecast_core.cost.allocate import EXACT
from forecast_core.cost.price_card import CURRENCIES

# Quantities have at most 9 decimals and unit prices at most 9, so that cost = price x quantity is
# exact in 18: no row is ever rounded, and sums over any cut are equal to the last decimal.
MONEY = pl.Decimal(38, 18)
QUANTITY = pl.Decimal(38, 9)
UNIT_PRICE = pl.Decimal(38, 9)
INSTANT = pl.Datetime("us", "UTC")

COST_CLASSES = ("workload", "idle", "overhead")
PIPELINES = (
    "ingest",
    "features",
    "training",
    "tuning",
    "backtest",
    "inference",
    "reconciliation",
    "monitoring",
    "storage",
)

_ATTRIBUTION: dict[str, pl.DataType] = {
    "x_environment": pl.String(),  # dev | staging | prod
    "x_cost_class": pl.String(),  # workload | idle | overhead
    "x_pipeline": pl.String(),  # one of PIPELINES; "unattributed" where the asset names none
    "x_forecaster": pl.String(),  # null where the step serves no forecaster
    "x_forecaster_version": pl.String(),
    "x_segment_group": pl.String(),
    "x_store_id": pl.String(),  # null: the charge belongs to no single store
    "x_asset": pl.String(),  # asset key, parts joined by "/"; null for overhead and idle
    "x_partition": pl.String(),  # one key, or "first...last" for a range
    "x_run_id": pl.String(),
    "x_step_key": pl.String(),  # null: the run as a whole; outside any run the process at work
    "x_attempt": pl.Int64(),  # 1 for the first try
    "x_cycle": pl.String(),  # the retraining cycle or batch that the run belongs to
    "x_code_version": pl.String(),  # of the code that did it; null for what died unmeasured
    "x_config_version": pl.String(),  # of the policies and settings that it followed
}

# What a charge's owner was served with: the volume that a unit cost divides by. Every charge of one
# owner says the same, so a reader takes it once an owner, not once a price-list line.
_SERVED: dict[str, pl.DataType] = {
    "x_series": pl.Int64(),  # item-stores (or nodes of a hierarchy); null where nothing is served
    "x_rows": pl.Int64(),  # rows written
}

# Everything a stored charge knows; the rest of FOCUS follows from it by `complete`.
CHARGE_COLUMNS: Mapping[str, pl.DataType] = {
    "x_charge_id": pl.String(),
    "x_charge_set": pl.String(),
    "date": pl.Date(),
    "ChargePeriodStart": INSTANT,
    "ChargePeriodEnd": INSTANT,
    "ChargeCategory": pl.String(),  # Usage (all of ours)
    "ChargeClass": pl.String(),  # null | Correction
    "ChargeDescription": pl.String(),
    "SkuId": pl.String(),  # line of the price card: vcpu_s, gib_s, gib_month/cold, ...
    "SkuPriceId": pl.String(),  # that line in one entry of the card
    "PricingQuantity": QUANTITY,
    "PricingUnit": pl.String(),
    "ListUnitPrice": UNIT_PRICE,
    "BilledCost": MONEY,
    "BillingCurrency": pl.String(),
    **_ATTRIBUTION,
    **_SERVED,
    "x_method": pl.String(),  # how the charge was split: whole | rows | fit_seconds | ...
    "x_estimated": pl.Boolean(),  # True: declared quota x wall, nothing was measured
    "x_status": pl.String(),  # success | failure | retry | killed | canceled
    "x_corrects": pl.String(),  # charge id that a correction corrects
    "x_price_card": pl.String(),  # name of the entry that rated it
}

LEDGER_COLUMNS: Mapping[str, pl.DataType] = {
    "x_charge_id": pl.String(),
    "x_charge_set": pl.String(),
    "date": pl.Date(),
    "AvailabilityZone": pl.String(),
    "BilledCost": MONEY,
    "BillingAccountId": pl.String(),
    "BillingAccountName": pl.String(),
    "BillingAccountType": pl.String(),
    "BillingCurrency": pl.String(),
    "BillingPeriodEnd": INSTANT,
    "BillingPeriodStart": INSTANT,
    "ChargeCategory": pl.String(),
    "ChargeClass": pl.String(),
    "ChargeDescription": pl.String(),
    "ChargeFrequency": pl.String(),
    "ChargePeriodEnd": INSTANT,
    "ChargePeriodStart": INSTANT,
    "ConsumedQuantity": QUANTITY,
    "ConsumedUnit": pl.String(),
    "ContractedCost": MONEY,
    "ContractedUnitPrice": UNIT_PRICE,
    "EffectiveCost": MONEY,
    "InvoiceIssuerName": pl.String(),
    "ListCost": MONEY,
    "ListUnitPrice": UNIT_PRICE,
    "PricingCategory": pl.String(),
    "PricingQuantity": QUANTITY,
    "PricingUnit": pl.String(),
    "ProviderName": pl.String(),
    "PublisherName": pl.String(),
    "RegionId": pl.String(),
    "RegionName": pl.String(),
    "ResourceId": pl.String(),
    "ResourceName": pl.String(),
    "ResourceType": pl.String(),
    "ServiceCategory": pl.String(),
    "ServiceName": pl.String(),
    "ServiceSubcategory": pl.String(),
    "SkuId": pl.String(),
    "SkuMeter": pl.String(),
    "SkuPriceId": pl.String(),
    "SubAccountId": pl.String(),
    "SubAccountName": pl.String(),
    "SubAccountType": pl.String(),
    "Tags": pl.String(),  # JSON object of strings
    **_ATTRIBUTION,
    **_SERVED,
    "x_method": pl.String(),
    "x_estimated": pl.Boolean(),
    "x_status": pl.String(),
    "x_corrects": pl.String(),
    "x_price_card": pl.String(),
}

STEP_COLUMNS: Mapping[str, pl.DataType] = {
    "x_charge_set": pl.String(),
    "date": pl.Date(),
    "ChargePeriodStart": INSTANT,
    "ChargePeriodEnd": INSTANT,
    **_ATTRIBUTION,
    "x_part": pl.Int64(),  # 0 for a step with one output
    "x_final": pl.Boolean(),  # the attempt is closed by this settlement
    "x_estimated": pl.Boolean(),
    "x_status": pl.String(),
    "cpu_s": pl.Float64(),
    "rss_gib_s": pl.Float64(),
    "peak_rss_gib": pl.Float64(),
    "wall_s": pl.Float64(),
    "gpu_s": pl.Float64(),
    "bytes_read": pl.Int64(),
    "bytes_written": pl.Int64(),
    "files_read": pl.Int64(),
    "files_written": pl.Int64(),
    "meter_cpu_s": pl.Float64(),  # CPU that metering itself took
    "rows": pl.Int64(),  # rows written
    "partitions": pl.Int64(),  # partitions covered
    "money": MONEY,
    "currency": pl.String(),
}

_CATEGORIES: Mapping[str, tuple[str, str, str]] = {
    # line -> service, category, subcategory, the latter two as FOCUS names them
    "vcpu_s": ("CPU", "Compute", "Serverless Compute"),
    "gib_s": ("Memory", "Compute", "Serverless Compute"),
    "gpu_s": ("GPU", "AI and Machine Learning", "Other (AI and Machine Learning)"),
    "transfer_gib": ("Transfer", "Networking", "Network Infrastructure"),
    "gib_month": ("Storage", "Storage", "Object Storage"),
    "read_request": ("Read requests", "Storage", "Object Storage"),
    "write_request": ("Write requests", "Storage", "Object Storage"),
    "retrieval_gib": ("Retrieval", "Storage", "Object Storage"),
}
_TAGS = ("x_pipeline", "x_forecaster", "x_segment_group", "x_store_id", "x_environment", "x_cycle")
CORRECTION = "Correction"


@dataclass(frozen=True)
class Account:
    """Whose bill it is: FOCUS's billing account, provider and region."""

    provider: str = "in-house"
    region: str = "local"
    account_id: str = "forecast"


def complete(charges: pl.DataFrame, account: Account) -> pl.DataFrame:
    """Charges (`CHARGE_COLUMNS`) as full FOCUS rows (`LEDGER_COLUMNS`), same rows, same order.

    There are no discounts and no commitments in-house: list, contracted, effective and billed cost
    are one amount.
    """
    line = pl.col("SkuId").str.split("/").list.first()
    service, category, subcategory = (
        line.replace_strict({key: value[i] for key, value in _CATEGORIES.items()}, default="Other")
        for i in range(3)
    )
    month = pl.col("ChargePeriodStart").dt.truncate("1mo")
    resource = pl.coalesce("x_asset", "x_step_key", "x_run_id", "x_environment")
    added = {
        "AvailabilityZone": pl.lit(None, pl.String),
        "BillingAccountId": pl.lit(account.account_id),
        "BillingAccountName": pl.lit("Demand forecasting"),
        "BillingAccountType": pl.lit("Project"),
        "BillingPeriodStart": month,
        "BillingPeriodEnd": month.dt.offset_by("1mo"),
        "ChargeFrequency": pl.lit("Usage-Based"),
        "ConsumedQuantity": pl.col("PricingQuantity"),
        "ConsumedUnit": pl.col("PricingUnit"),
        "ContractedUnitPrice": pl.col("ListUnitPrice"),
        **{n: pl.col("BilledCost") for n in ("ContractedCost", "EffectiveCost", "ListCost")},
        **{
            name: pl.lit(account.provider)
            for name in ("InvoiceIssuerName", "ProviderName", "PublisherName")
        },
        "PricingCategory": pl.lit("Standard"),
        "RegionId": pl.lit(account.region),
        "RegionName": pl.lit(account.region),
        "ResourceId": resource,
        "ResourceName": resource,
        "ResourceType": pl.when(pl.col("x_asset").is_not_null())
        .then(pl.lit("Asset"))
        .when(pl.col("x_step_key").is_not_null())
        .then(pl.lit("Step"))
        .otherwise(pl.lit("Run")),
        "ServiceName": service,
        "ServiceCategory": category,
        "ServiceSubcategory": subcategory,
        "SkuMeter": service,
        "SubAccountId": pl.col("x_environment"),
        "SubAccountName": pl.col("x_environment"),
        "SubAccountType": pl.lit("Environment"),
        "Tags": _tags(),
    }
    full = charges.with_columns(**added)
    return full.select(pl.col(name).cast(dtype) for name, dtype in LEDGER_COLUMNS.items())


def _tags() -> pl.Expr:
    """A JSON object of the attribution that is known; every value is a string."""
    pairs = [
        pl.when(pl.col(name).is_not_null()).then(
            pl.concat_str(
                pl.lit(f'"{name[2:]}":'), pl.col(name).map_elements(json.dumps, pl.String)
            )
        )
        for name in _TAGS
    ]
    return pl.concat_str(
        pl.lit("{"), pl.concat_str(pairs, separator=",", ignore_nulls=True), pl.lit("}")
    )


def export_rows(ledger: pl.DataFrame) -> pl.DataFrame:
    """FOCUS rows as exported: standard columns in order of their names, then the `x_` ones.

    `date` is left out, being a column of neither kind.
    """
    standard = sorted(n for n in ledger.columns if not n.startswith("x_") and n != "date")
    return ledger.select(*standard, *(n for n in ledger.columns if n.startswith("x_")))


def as_text(export: pl.DataFrame) -> pl.DataFrame:
    """An export for CSV: moments as FOCUS writes them, `YYYY-MM-DDTHH:MM:SSZ`.

    Starts are cut to the second and ends filled to it, so that no period becomes empty.
    """
    moments = [name for name, dtype in export.schema.items() if isinstance(dtype, pl.Datetime)]
    shift = {name: "999999us" if name.endswith("End") else "0us" for name in moments}
    return export.with_columns(
        pl.col(name).dt.offset_by(shift[name]).dt.truncate("1s").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        for name in moments
    )


@dataclass(frozen=True)
class Violation:
    """A rule that rows break: how many, and the charge id of one of them."""

    rule: str
    rows: int
    example: str


def violations(ledger: pl.DataFrame) -> list[Violation]:
    """What an export (`LEDGER_COLUMNS`) breaks of the specification and of our own rules."""
    broken = [(rule, ledger.filter(expression)) for rule, expression in _RULES.items()]
    broken += [(rule, find(ledger)) for rule, find in _SLOW_RULES.items()]
    return [
        Violation(rule, found.height, str(found["x_charge_id"][0]))
        for rule, found in broken
        if found.height
    ]


def _col(name: str) -> pl.Expr:
    return pl.col(name)


_REQUIRED = (
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart",
    "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "ListUnitPrice", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName", "SkuId", "SkuPriceId", "x_charge_id", "x_charge_set",
    "x_environment", "x_cost_class", "x_estimated",
)  # fmt: skip
_RULES: Mapping[str, pl.Expr] = {
    "charge period: start before end": _col("ChargePeriodStart") >= _col("ChargePeriodEnd"),
    "billing period: start before end": _col("BillingPeriodStart") >= _col("BillingPeriodEnd"),
    "a charge starts inside its billing period": ~_col("ChargePeriodStart").is_between(
        _col("BillingPeriodStart"), _col("BillingPeriodEnd"), closed="left"
    ),
    "date is the day of the charge period": _col("date") != _col("ChargePeriodStart").dt.date(),
    "list = contracted = effective = billed cost": (_col("ListCost") != _col("BilledCost"))
    | (_col("ContractedCost") != _col("BilledCost"))
    | (_col("EffectiveCost") != _col("BilledCost")),
    "list = contracted unit price": _col("ListUnitPrice") != _col("ContractedUnitPrice"),
    "unit price is not negative": _col("ListUnitPrice") < 0,
    "a quantity is negative only in a correction": (_col("PricingQuantity") < 0)
    & _col("ChargeClass").is_null(),
    "charge class is empty or Correction": _col("ChargeClass").is_not_null()
    & (_col("ChargeClass") != CORRECTION),
    "a correction names what it corrects, nothing else does": _col("ChargeClass").is_null()
    != _col("x_corrects").is_null(),
    "cost class is known": ~_col("x_cost_class").is_in(COST_CLASSES),
    "currency is of ISO 4217": ~_col("BillingCurrency").is_in(sorted(CURRENCIES)),
    "charge ids are unique": _col("x_charge_id").is_duplicated(),
    "one currency": _col("BillingCurrency") != _col("BillingCurrency").first(),
    **{f"{name} is not empty": _col(name).is_null() for name in _REQUIRED},
}


def _wrong_product(ledger: pl.DataFrame) -> pl.DataFrame:
    # Python's Decimal, since a product of two 9-decimal columns must not be rounded.
    amounts = ledger.select("ListUnitPrice", "PricingQuantity", "ListCost").iter_rows()
    wrong = [None not in row and EXACT.multiply(row[0], row[1]) != row[2] for row in amounts]
    return ledger.filter(pl.Series(wrong, dtype=pl.Boolean))


def _bad_tags(ledger: pl.DataFrame) -> pl.DataFrame:
    return ledger.filter(pl.Series([not _is_tags(t) for t in ledger["Tags"]], dtype=pl.Boolean))


def _is_tags(text: str | None) -> bool:
    try:
        tags = json.loads(text or "")
    except ValueError:
        return False
    return isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values())


_SLOW_RULES: Mapping[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "cost = unit price x quantity": _wrong_product,
    "tags are a JSON object of strings": _bad_tags,
}
