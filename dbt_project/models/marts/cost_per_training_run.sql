-- What each training run cost, by the segment group whose forecaster it fitted.
with of_group as (
    select
        environment,
        run_id,
        cycle,
        forecaster,
        forecaster_version,
        segment_group,
        billing_currency,
        min(began) as began,
        max(series) as series,
        sum(quantity) filter (where sku = 'vcpu_s' and not is_correction) as cpu_s,
        sum(billed_cost) filter (where status not in ('success')) as failed_cost,
        sum(billed_cost) as billed_cost
    from {{ ref('stg_charges') }}
    where pipeline in ('training', 'tuning')
    group by all
)
select
    *,
    {{ per('billed_cost', 'series') }} as cost_per_series
from of_group
