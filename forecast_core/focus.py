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

from collections.abc import Mapping

import polars as pl

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
    "x_step_key": pl.String(),  # null: the run as a whole, or a process outside any run
    "x_attempt": pl.Int64(),  # 1 for the first try
    "x_cycle": pl.String(),  # the retraining cycle or batch that the run belongs to
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
