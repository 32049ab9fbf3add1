-- What each item in each store has cost. A charge is divided evenly over the item-stores of its
-- store and segment group, over all of them where it names neither, and not one decimal is lost:
-- it is divided in whole units, and the first ones take what is left.
with cells as (
    select
        environment,
        billing_currency,
        store_id,
        segment_group,
        sum(billed_cost) as billed_cost,
        coalesce(sum(billed_cost) filter (where pipeline = 'inference'), 0) as inference_cost
    from {{ ref('stg_charges') }}
    group by all
),
known as (
    select store_id, segment_group, count(*) as item_stores
    from {{ ref('stg_item_stores') }}
    group by cube (store_id, segment_group)
),
placed as (
    -- The narrowest cell that holds an item-store: store and group, either, all.
    select
        cells.*,
        case
            when of_both.item_stores > 0 then 'both'
            when of_store.item_stores > 0 then 'store'
            when of_group.item_stores > 0 then 'group'
            else 'all'
        end as cut
    from cells
    left join known as of_both
        on cells.store_id = of_both.store_id and cells.segment_group = of_both.segment_group
    left join known as of_store
        on cells.store_id = of_store.store_id and of_store.segment_group is null
    left join known as of_group
        on cells.segment_group = of_group.segment_group and of_group.store_id is null
),
parts as (
    select
        placed.environment,
        placed.billing_currency,
        members.item_id,
        members.store_id,
        members.segment_group,
        {{ units_of('placed.billed_cost') }} as units,
        {{ units_of('placed.inference_cost') }} as inference_units,
        count(*) over cell as of_cell,
        row_number() over (cell order by members.item_id, members.store_id) as position
    from placed
    left join {{ ref('stg_item_stores') }} as members
        on (placed.cut = 'all' or placed.cut = 'group' or placed.store_id = members.store_id)
        and (placed.cut in ('all', 'store') or placed.segment_group = members.segment_group)
    window cell as (
        partition by
            placed.environment, placed.billing_currency, placed.store_id, placed.segment_group
    )
),
divided as (
    select
        environment,
        billing_currency,
        item_id,
        store_id,
        segment_group,
        sum(units // of_cell + sign(units % of_cell) * (position <= abs(units % of_cell))::int)
            as units,
        sum(
            inference_units // of_cell
            + sign(inference_units % of_cell) * (position <= abs(inference_units % of_cell))::int
        ) as inference_units
    from parts
    group by all
)
select
    environment,
    item_id,
    store_id,
    segment_group,
    billing_currency,
    {{ money_of('inference_units') }} as inference_cost,
    {{ money_of('units') }} as billed_cost
from divided
