{# No row comes back when the mart holds every charge that it should, to the last decimal. #}
{% test sums_to_the_ledger(model, column_name, of='true') %}
with mart as (
    select coalesce(sum({{ column_name }}), 0) as total from {{ model }}
),
ledger as (
    select coalesce(sum(billed_cost), 0) as total from {{ ref('stg_charges') }} where {{ of }}
)
select mart.total as mart_total, ledger.total as ledger_total
from mart cross join ledger
where mart.total <> ledger.total
{% endtest %}
