-- No row comes back when the charges of each settlement sum to its money, corrections aside.
with charged as (
    select charge_set, sum(billed_cost) as amount
    from {{ ref('stg_charges') }}
    where not is_correction
    group by charge_set
)
select steps.charge_set, steps.money, charged.amount
from {{ ref('stg_steps') }} as steps
inner join charged on steps.charge_set = charged.charge_set
where steps.money <> charged.amount
