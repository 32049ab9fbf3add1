-- What storing each table cost by tier and day, and how much was stored. `upkeep` is the work of
-- looking after it (moves, scrubs, their requests and retrievals): money without stored bytes.
select
    environment,
    charge_date,
    asset as table_name,
    case when sku like 'gib_month/%' then split_part(sku, '/', 2) else 'upkeep' end as tier,
    billing_currency,
    coalesce(sum(quantity) filter (where sku like 'gib_month/%'), 0) as gib_months,
    cast(gib_months as double) * max(day(last_day(charge_date))) as gib,
    sum(billed_cost) as billed_cost
from {{ ref('stg_charges') }}
where pipeline = 'storage'
group by all
