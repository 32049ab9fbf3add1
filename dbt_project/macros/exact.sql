{# Money has 18 decimals and no cent is rounded: it is divided as a whole number of units. #}

{% macro units_of(money) %}
cast(replace(cast({{ money }} as varchar), '.', '') as hugeint)
{% endmacro %}

{% macro money_of(units) %}
cast(
    cast({{ units }} // 1000000000000000000 as decimal(20, 0))
    + cast({{ units }} % 1000000000000000000 as decimal(18, 0)) * 0.000000000000000001
    as decimal(38, 18)
)
{% endmacro %}

{# For ratios only: money that is summed stays exact. #}
{% macro per(money, volume) %}
cast({{ money }} as double) / nullif({{ volume }}, 0)
{% endmacro %}
