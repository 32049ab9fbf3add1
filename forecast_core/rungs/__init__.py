"""The rungs of the ladder; nothing here reads or writes a disk.

Every rung answers with `Means`-shaped frames: item_id (String), ds (Date), mean (Float64), the
horizon's days for each item asked for. What is learnt is kept as JSON or LightGBM's own text,
never as a pickle.
"""
