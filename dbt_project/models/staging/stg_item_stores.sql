-- Every item in every store with the segment group that it was last in.
select
    item_id,
    store_id,
    segment_group,
    as_of
from {{ source('lake', 'demand_segments') }}
qualify row_number() over (partition by item_id, store_id order by as_of desc) = 1
