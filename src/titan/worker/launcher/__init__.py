"""The launcher: the one process that forks jobs, a separate interpreter beside each worker.

Standard library only, and only what costs no memory: every page it owns is paid for in each fork. That is
why it reads its orders with `struct`, and takes `_socket` and `_signal` instead of their public faces,
which pull in `enum` and half a megabyte with it.
"""
