"""How often one token may ask from one address. Whoever asks more is told to wait, and others are served meanwhile.

Each kind of request has a bucket of its own for each token and address: `*_per_s_max` of the limits in the long run,
ten times that at once. It is judged behind the role and before a body is read.
"""

import functools
import ipaddress
import time
from collections.abc import Callable, Hashable

from titan.master.buckets import Buckets
from titan.master.problems import HttpError
from titan.master.roles import ALLOWED
from titan.model.limits import Limits, change

BURST_S = 10
OTHER = "requests_per_s_max"
KINDS = {
    "submits_per_s_max": ("runs.submit", "runs.extend", "runs.retry", "blobs.put", "registry.put", "artifacts.put"),
    "store_writes_per_s_max": (
        "store.put", "store.delete", "store.incr", "store.cas", "store.sadd", "store.srem", "store.many",
    ),
    "store_reads_per_s_max": ("store.get", "store.smembers", "store.list"),
    "log_reads_per_s_max": ("jobs.log",),
}  # fmt: skip
_WHAT = {
    "submits_per_s_max": "submissions and uploads",
    "store_writes_per_s_max": "writes to the store",
    "store_reads_per_s_max": "reads of the store",
    "log_reads_per_s_max": "reads of logs",
    OTHER: "requests",
}


class Rates:
    """All buckets of one Master but those of its workers' links. The clock is monotonic."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        buckets = {kind: Buckets(burst(limits, kind), getattr(limits, kind), clock=clock) for kind in _WHAT}
        kinds = {route: kind for kind, routes in KINDS.items() for route in routes}
        self._of = {route: (kind := kinds.get(route, OTHER), buckets[kind]) for route in ALLOWED}

    def judge(self, caller: Hashable, address: str, route: str) -> None:
        """Count a request of `caller` for `route`. Raises a 429 when it was one too many."""
        kind, buckets = self._of[route]
        wait_s = buckets.take((caller, address if ":" not in address else street(address)))
        if wait_s:
            rate = getattr(self._limits, kind)
            text = f"more than {rate} {_WHAT[kind]} a second came with this token from this address"
            hint = f"send it again after the pause; {change(kind)}"
            raise HttpError(429, text, code="rate_limited", hint=hint, retry_after_s=round(wait_s, 6))


def burst(limits: Limits, kind: str) -> float:
    """Return how many of a kind may come at once."""
    return float(getattr(limits, kind) * BURST_S)


@functools.lru_cache(4096)
def street(address: str) -> str:
    """Return under what an address is counted: whoever has one of IPv6 has the 2**64 around it."""
    if ":" not in address:
        return address
    try:
        whole = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(whole.ipv4_mapped or int(whole) >> 64)
