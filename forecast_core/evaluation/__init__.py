"""How good forecasts are, at what price, and what is done about it.

`accuracy` scores, `backtest` and `contest` make what is scored, `frontier` sets it beside its cost;
`drift` and `live_accuracy` watch, `retrain` and `tuning` answer while the gain is worth it.
"""
