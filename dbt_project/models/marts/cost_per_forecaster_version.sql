-- What each version of each forecaster cost to fit and to use.
select
    environment,
    forecaster,
    forecaster_version,
    segment_group,
    billing_currency,
    min(began) as first_used,
    max(began) as last_used,
    max(series) as largest_store_or_fit,
    count(distinct cutoff) as batches,
    sum(billed_cost) filter (where pipeline in ('training', 'tuning')) as training_cost,
    sum(billed_cost) filter (where pipeline = 'inference') as inference_cost,
    sum(billed_cost) as billed_cost
from {{ ref('stg_charges') }}
group by all
