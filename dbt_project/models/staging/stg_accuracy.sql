-- Errors of each forecaster by cutoff and level.
select
    cutoff,
    level,
    forecaster,
    wape,
    bias,
    wrmsse,
    series
from {{ source('lake', 'eval_accuracy') }}
