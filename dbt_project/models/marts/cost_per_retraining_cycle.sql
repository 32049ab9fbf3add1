-- What each retraining cycle cost, from the first row landed to the last forecast published. The
-- columns by pipeline sum to `billed_cost` (a test holds that).
with retraining as (
    select distinct environment, cycle
    from {{ ref('stg_charges') }}
    where pipeline in ('training', 'tuning') and cycle is not null
)
select
    charges.environment,
    charges.cycle,
    charges.billing_currency,
    min(began) as began,
    count(distinct run_id) as runs,
    {% for pipeline in [
        'ingest', 'features', 'training', 'tuning', 'backtest', 'inference', 'reconciliation',
        'monitoring', 'storage', 'unattributed', 'idle', 'overhead',
    ] %}
    coalesce(sum(billed_cost) filter (where pipeline = '{{ pipeline }}'), 0)
        as {{ pipeline }}_cost,
    {% endfor %}
    sum(billed_cost) as billed_cost
from {{ ref('stg_charges') }} as charges
inner join retraining
    on charges.environment = retraining.environment and charges.cycle = retraining.cycle
group by all
