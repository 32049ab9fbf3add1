-- No row comes back when what each cycle cost by pipeline sums to what it cost.
select *
from {{ ref('cost_per_retraining_cycle') }}
where billed_cost <> ingest_cost + features_cost + training_cost + tuning_cost + backtest_cost
    + inference_cost + reconciliation_cost + monitoring_cost + storage_cost + unattributed_cost
    + idle_cost + overhead_cost
