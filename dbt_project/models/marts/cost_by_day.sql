-- Money by pipeline, forecaster, segment group, environment and day; sums equal the ledger's.
select
    charge_date,
    environment,
    pipeline,
    forecaster,
    segment_group,
    billing_currency,
    count(*) as charges,
    sum(billed_cost) as billed_cost
from {{ ref('stg_charges') }}
group by all
