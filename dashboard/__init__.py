"""The dashboard: what was forecast, what it cost and what comes next, read-only and live.

Belongs here: reading what the platform wrote and showing it. Does not: writing anything, deciding
anything, or computing what a table, a mart or the ledger already holds.

`stores`, `marts` and `live` open what is read; `figures` turns it into frames, without a browser;
`views` shows them. Nothing of Dagster is imported: a page must open at once.
"""
