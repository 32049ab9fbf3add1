"""What work costs and who pays: from what was used to rows that sum to the last decimal.

A price card (`price_card`) rates what was used (`charges`); `allocate` splits it over its
owners and `settlement` makes the rows that the ledger keeps, in the words of `focus`. `estimate`
and `spend_forecast` look ahead, `rerate` and `report` look back.
"""
