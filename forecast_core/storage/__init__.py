"""Where rows lie and what that costs: tiers, the rules of moves, the planner, and what is stale.

Nothing here touches a file: the lake and its mover are in `resources`.
"""
