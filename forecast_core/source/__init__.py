"""Somebody's tables as ours: guessed, mapped, read, cleaned, landed where they changed.

`guess` proposes a `mapping`, `rows` applies it, `clean` keeps or quarantines; `changes` and
`landing` say what of a later delivery is new. Nothing is lost on the way, and what is refused is
told.
"""
