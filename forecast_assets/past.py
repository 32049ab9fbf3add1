"""The lake as a backtest reads it.

Belongs here: handing `forecast_core.evaluation.backtest` its sales and features from the tables.
Does not: any forecasting.
"""

from datetime import date

import polars as pl

from forecast_core.cells import Cells
from forecast_core.evaluation.backtest import Past
from forecast_core.schema import TABLES
from resources.table_view import TableView

SOLD = list(TABLES["cleaned_sales"].columns)


def past_of(
    cleaned_sales: TableView, feature_sales: TableView, calendar: pl.DataFrame, step: int = 1
) -> Past:
    """Windows of one store, read when asked for and metered as the step's."""

    covariates = tuple(name for name in cleaned_sales.columns() if name.startswith("x_"))

    def sales(store: str, first: date, last: date) -> pl.DataFrame:
        return cleaned_sales.frame(Cells(first, last, (store,)), [*SOLD, *covariates])

    def features(store: str, first: date, last: date) -> pl.DataFrame:
        return feature_sales.frame(Cells(first, last, (store,)))

    return Past(sales, features, calendar, step, covariates)
