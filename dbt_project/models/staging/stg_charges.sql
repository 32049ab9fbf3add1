-- One row a charge, with names for what a mart groups by.
select
    x_charge_id as charge_id,
    date as charge_date,
    x_environment as environment,
    x_cost_class as cost_class,
    coalesce(x_pipeline, x_cost_class) as pipeline,
    coalesce(x_forecaster, 'none') as forecaster,
    coalesce(x_segment_group, 'none') as segment_group,
    coalesce(x_store_id, 'all') as store_id,
    x_asset as asset,
    x_run_id as run_id,
    BilledCost as billed_cost,
    BillingCurrency as billing_currency
from {{ source('lake', 'cost_ledger') }}
