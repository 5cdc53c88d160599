"""The Worker: connects outward to a Master and runs its jobs on this machine.

`process` joins the parts; `launcher/` is the small process that forks the jobs and leaves none behind.
"""
