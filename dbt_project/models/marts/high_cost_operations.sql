-- Every operation, dearest first, and what kind of dear it is.
with charged as (
    select
        environment,
        run_id,
        step_key,
        asset,
        pipeline,
        billing_currency,
        min(began) as began,
        string_agg(distinct forecaster, ', ' order by forecaster)
            filter (where forecaster <> 'none') as forecasters,
        -- a run that serves many groups is what most of its money went to
        2 * sum(case when forecaster = 'neural' then billed_cost else 0 end)
            > sum(billed_cost) as is_neural,
        max(attempt) as attempts,
        sum(billed_cost) filter (where status not in ('success')) as failed_cost,
        sum(billed_cost) as billed_cost
    from {{ ref('stg_charges') }}
    where cost_class = 'workload'
    group by all
),
sizes as (
    select
        run_id,
        step_key,
        asset,
        sum(cpu_s) as cpu_s,
        max(peak_rss_gib) as peak_rss_gib,
        sum(gpu_s) as gpu_s,
        sum(rows_written) as rows_written,
        max(partitions) as partitions
    from {{ ref('stg_steps') }}
    where cost_class = 'workload'
    group by all
),
served as (
    select run_id, step_key, asset, sum(series) as series
    from (
        select run_id, step_key, asset, store_id, segment_group, max(series) as series
        from {{ ref('stg_charges') }}
        group by all
    )
    group by all
)
select
    row_number() over (order by charged.billed_cost desc, charged.run_id, charged.asset) as place,
    case
        when charged.pipeline in ('training', 'tuning') and charged.is_neural
            then 'deep-learning retrain'
        when charged.pipeline in ('training', 'tuning') then 'retrain'
        when charged.pipeline = 'reconciliation' then 'reconciliation'
        when charged.pipeline = 'storage' then 'storage'
        when sizes.partitions >= {{ var('long_backfill_partitions', 30) }} then 'long backfill'
        when served.series >= {{ var('high_cardinality_series', 10000) }} then 'cardinality'
        else 'routine'
    end as kind,
    charged.* exclude (is_neural),
    sizes.* exclude (run_id, step_key, asset),
    served.series,
    100 * {{ per('charged.billed_cost', 'sum(charged.billed_cost) over ()') }} as share_pct,
    {{ per('charged.billed_cost', 'served.series') }} as cost_per_series
from charged
left join sizes
    on charged.run_id = sizes.run_id
    and charged.step_key = sizes.step_key
    and charged.asset is not distinct from sizes.asset
left join served
    on charged.run_id = served.run_id
    and charged.step_key = served.step_key
    and charged.asset is not distinct from served.asset
