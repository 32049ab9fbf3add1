-- No row comes back when the mart holds every charge, to the last decimal.
with mart as (
    select sum(billed_cost) as total, sum(charges) as charges from {{ ref('cost_by_day') }}
),
ledger as (
    select sum(billed_cost) as total, count(*) as charges from {{ ref('stg_charges') }}
)
select mart.*, ledger.total as ledger_total
from mart cross join ledger
where mart.total is distinct from ledger.total or coalesce(mart.charges, 0) <> ledger.charges
