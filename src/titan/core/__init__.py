"""The pure heart: no I/O, no clock, no randomness; events in, decisions out.

The engine commits a decision's changes first and only then lets anybody learn of it.
"""
