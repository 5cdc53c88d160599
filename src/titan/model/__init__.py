"""The words Master, Worker and core share: ids, states, job specs, limits, wire messages, views.

Nothing here does I/O or decides anything; `titan.core` decides, `titan.storage` keeps.
"""
