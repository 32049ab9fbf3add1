"""The domain: pure functions and frozen value objects over polars, numpy and Arrow.

Belongs here: demand, features, forecasters, hierarchy, accuracy, price cards, tiers, admission.
Does not: Dagster, the environment, the clock, the disk. What touches the world is in
`resources`; what orchestrates is in `forecast_assets`.
"""
