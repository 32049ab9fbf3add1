"""The pages: one module a page, each a `page(live)` that shows what `dashboard.figures` found.

Belongs here: layout and wording. Does not: queries.
"""
