-- Forecast value added by the governed forecast over the floor, and what a unit of it cost.
-- FVA = 1 - error / error of the floor. Cost is what the upgrade took beyond the floor: its
-- inference at that cutoff, and the fitting of the versions that served it.
with upgrades as (
    select environment, cutoff, forecaster_version, segment_group, sum(billed_cost) as cost
    from {{ ref('stg_charges') }}
    where asset = 'prediction_daily' and cutoff is not null
    group by all
),
inference as (
    select environment, cutoff, sum(cost) as cost from upgrades group by all
),
fitting as (
    select
        used.environment,
        used.cutoff,
        sum(trained.cost) as cost
    from (select distinct environment, cutoff, forecaster_version from upgrades) as used
    inner join (
        select environment, forecaster_version, sum(billed_cost) as cost
        from {{ ref('stg_charges') }}
        where pipeline in ('training', 'tuning') and forecaster_version <> 'none'
        group by all
    ) as trained
        on used.environment = trained.environment
        and used.forecaster_version = trained.forecaster_version
    group by all
),
value as (
    select
        governed.cutoff,
        governed.level,
        governed.series,
        1 - governed.wape / nullif(floor.wape, 0) as fva_wape,
        1 - governed.wrmsse / nullif(floor.wrmsse, 0) as fva_wrmsse
    from {{ ref('stg_accuracy') }} as governed
    inner join {{ ref('stg_accuracy') }} as floor
        on governed.cutoff = floor.cutoff and governed.level = floor.level
    where governed.forecaster = 'governed' and floor.forecaster = 'floor'
)
select
    inference.environment,
    value.cutoff,
    value.level,
    value.series,
    value.fva_wape,
    value.fva_wrmsse,
    inference.cost as inference_cost,
    coalesce(fitting.cost, 0) as training_cost,
    inference.cost + coalesce(fitting.cost, 0) as billed_cost,
    value.fva_wape / nullif(cast(inference.cost + coalesce(fitting.cost, 0) as double), 0)
        as fva_wape_per_unit_cost,
    value.fva_wrmsse / nullif(cast(inference.cost + coalesce(fitting.cost, 0) as double), 0)
        as fva_wrmsse_per_unit_cost
from value
inner join inference on value.cutoff = inference.cutoff
left join fitting
    on inference.environment = fitting.environment and inference.cutoff = fitting.cutoff
