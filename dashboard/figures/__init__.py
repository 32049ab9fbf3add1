"""What the pages show, as frames and plain values: one module a page, no browser.

Belongs here: queries and their shaping. Does not: widgets and charts (`dashboard.views`).
"""
