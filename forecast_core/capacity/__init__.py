"""Capacity: what the platform will cost, hold and deliver, told by the code that governs it.

A plan (`plan`) and what runs have cost (`fit`) give arrivals (`arrivals`); the twin (`twin`) owns
the clock and asks the very `decide` of the live queue; `outcomes` turns draws into bands.
"""
