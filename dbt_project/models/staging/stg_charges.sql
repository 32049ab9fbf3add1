-- One row a charge, with names for what a mart groups by.
select
    x_charge_id as charge_id,
    x_charge_set as charge_set,
    date as charge_date,
    ChargePeriodStart as began,
    x_environment as environment,
    x_cost_class as cost_class,
    coalesce(x_pipeline, x_cost_class) as pipeline,
    coalesce(x_forecaster, 'none') as forecaster,
    coalesce(x_forecaster_version, 'none') as forecaster_version,
    coalesce(x_segment_group, 'none') as segment_group,
    coalesce(x_store_id, 'all') as store_id,
    x_asset as asset,
    x_partition as partition_key,
    -- A batch of forecasts is named by its cutoff, the first part of its partition.
    case
        when x_pipeline in ('inference', 'reconciliation') then try_cast(x_partition[:10] as date)
    end as cutoff,
    x_run_id as run_id,
    x_step_key as step_key,
    x_attempt as attempt,
    x_cycle as cycle,
    x_code_version as code_version,
    x_config_version as config_version,
    x_series as series,
    x_rows as rows_written,
    x_method as method,
    x_estimated as is_estimated,
    x_status as status,
    coalesce(ChargeClass = 'Correction', false) as is_correction,
    SkuId as sku,
    PricingQuantity as quantity,
    BilledCost as billed_cost,
    BillingCurrency as billing_currency
from {{ source('lake', 'cost_ledger') }}
