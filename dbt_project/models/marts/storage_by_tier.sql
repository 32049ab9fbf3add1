-- What storing each table cost by tier and day, and how much was stored.
select
    environment,
    charge_date,
    asset as table_name,
    split_part(sku, '/', 2) as tier,
    billing_currency,
    sum(quantity) as gib_months,
    cast(sum(quantity) as double) * max(day(last_day(charge_date))) as gib,
    sum(billed_cost) as billed_cost
from {{ ref('stg_charges') }}
where pipeline = 'storage'
group by all
