-- What each batch of forecasts cost: inference and reconciliation of one cutoff.
with lines as (
    select * from {{ ref('stg_charges') }} where pipeline in ('inference', 'reconciliation')
),
-- The lines of an owner repeat what it served, and every run of a cutoff serves the same again.
served as (
    select environment, cutoff, sum(series) as item_stores
    from (
        select environment, cutoff, store_id, segment_group, max(series) as series
        from lines
        where asset = 'prediction_daily'
        group by all
    )
    group by all
),
cost as (
    select
        environment,
        cutoff,
        billing_currency,
        min(began) as began,
        count(distinct run_id) as runs,
        sum(billed_cost) filter (where asset = 'prediction_floor') as floor_cost,
        sum(billed_cost) filter (where asset = 'prediction_daily') as upgrade_cost,
        sum(billed_cost) filter (where pipeline = 'reconciliation') as reconciliation_cost,
        sum(billed_cost) as billed_cost
    from lines
    group by all
)
select
    cost.*,
    served.item_stores,
    {{ per('cost.billed_cost', 'served.item_stores') }} as cost_per_item_store
from cost
left join served
    on cost.environment = served.environment and cost.cutoff is not distinct from served.cutoff
