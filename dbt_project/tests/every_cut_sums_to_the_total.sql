-- No row comes back when the charges add up to one total whichever way they are cut, and the three
-- cost classes are all there is.
{% set cuts = [
    'cost_class', 'pipeline', 'forecaster', 'forecaster_version', 'segment_group', 'store_id',
    'environment', 'asset', 'run_id', 'cycle', 'sku', 'charge_date',
] %}
with total as (
    select coalesce(sum(billed_cost), 0) as amount from {{ ref('stg_charges') }}
),
cuts as (
    {% for cut in cuts %}
    select '{{ cut }}' as cut, coalesce(sum(amount), 0) as amount
    from (select sum(billed_cost) as amount from {{ ref('stg_charges') }} group by {{ cut }})
    {{ 'union all' if not loop.last }}
    {% endfor %}
    union all
    select 'workload + idle + overhead' as cut, coalesce(sum(billed_cost), 0) as amount
    from {{ ref('stg_charges') }}
    where cost_class in ('workload', 'idle', 'overhead')
)
select cuts.cut, cuts.amount, total.amount as total
from cuts cross join total
where cuts.amount <> total.amount
