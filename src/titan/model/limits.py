"""Every limit of the product, in one place, each with its unit last in its name.

The figures are the agreed ones of `docs/reference/limits.md`. `Limits.load` reads overrides from the
environment (`TITAN_LIMIT_<NAME>`), so an operator can change one without touching code.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

PREFIX = "TITAN_LIMIT_"


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What one Master accepts."""

    dag_jobs_max: int = 100_000
    dag_edges_max: int = 500_000
    dag_name_chars_max: int = 200
    job_parents_max: int = 10_000
    requirement_tags_max: int = 16
    args_bytes_max: int = 128 * 1024
    env_bytes_max: int = 32 * 1024
    submit_body_bytes_max: int = 64 * 1024 * 1024
    submit_jobs_inline_max: int = 1_000
    blob_bytes_max: int = 64 * 1024 * 1024
    blob_inline_bytes_max: int = 64 * 1024
    artifact_bytes_max: int = 16 * 1024 * 1024 * 1024
    artifact_key_chars_max: int = 512
    artifact_versions_max: int = 5
    artifacts_max: int = 100_000
    artifacts_total_bytes_max: int = 256 * 1024 * 1024 * 1024
    transfers_max: int = 100
    head_bytes_max: int = 64 * 1024
    frame_bytes_max: int = 1024 * 1024
    output_bytes_max: int = 256 * 1024
    json_depth_max: int = 32
    json_bytes_max: int = 1024 * 1024
    store_key_bytes_max: int = 512
    store_value_bytes_max: int = 1024 * 1024
    store_many_max: int = 1_000
    store_body_bytes_max: int = 7 * 1024 * 1024
    log_fetch_bytes_max: int = 16 * 1024 * 1024
    log_job_bytes_max: int = 1024 * 1024 * 1024
    waits_max: int = 1_000
    workers_max: int = 5_000
    tokens_max: int = 10_000
    audit_rows_max: int = 1_000_000
    audit_days_max: int = 366
    refusals_max: int = 200
    address_refusals_max: int = 20
    submits_per_s_max: int = 1_000
    store_writes_per_s_max: int = 5_000
    store_reads_per_s_max: int = 10_000
    log_reads_per_s_max: int = 2_000
    requests_per_s_max: int = 5_000
    link_messages_per_s_max: int = 50_000
    wait_s_max: float = 25.0
    events_ring_max: int = 10_000
    page_rows_max: int = 1_000
    priority_max: int = 1_000
    retries_max: int = 1_000
    retry_backoff_s_max: float = 300.0
    delay_ms_max: int = 366 * 86_400_000
    timeout_s_max: float = 366 * 86_400.0
    lease_s_min: int = 30
    lease_s_max: int = 86_400

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> "Limits":
        """Return the limits with `TITAN_LIMIT_<NAME>` overrides applied.

        Raises ValueError naming the variable when its value is not a positive number or no limit has that name.
        """
        defaults = {f"{PREFIX}{name.upper()}": (name, value) for name, value in dataclasses.asdict(cls()).items()}
        changed: dict[str, Any] = {}
        for variable, text in environ.items():
            if not variable.startswith(PREFIX):
                continue
            if variable not in defaults:
                import difflib

                near = difflib.get_close_matches(variable, defaults, 1) or sorted(defaults)
                raise ValueError(f"{variable} is no limit: did you mean {near[0]}? Set that, or unset it")
            name, default = defaults[variable]
            try:
                value = type(default)(text)
            except ValueError:
                value = 0
            if not 0 < value < math.inf:
                kind = "whole number" if type(default) is int else "number"
                raise ValueError(f"{variable}={text!r} is no positive {kind}: give one, or unset it")
            changed[name] = value
        return dataclasses.replace(cls(), **changed)


DEFAULT_LIMITS = Limits()

# Which limit bounds the body of a route; JSON_LIMIT does of all others. What is decoded in one go holds everybody:
# 1 MiB of the worst JSON for some 11 ms, 7 MiB of a value, or of a store/many, for less than 20 ms. There is room for
# a value of 1 MiB with each byte escaped. A submission is decoded line by line: JSON_LIMIT bounds each line of it.
JSON_LIMIT = "json_bytes_max"
BODY_LIMITS = {
    "runs.submit": "submit_body_bytes_max",
    "runs.extend": "submit_body_bytes_max",
    "store.put": "store_body_bytes_max",
    "store.cas": "store_body_bytes_max",
    "store.many": "store_body_bytes_max",
    "blobs.put": "blob_bytes_max",
    "registry.put": "blob_bytes_max",
    "artifacts.put": "artifact_bytes_max",
}


def body_limit(route: str) -> str:
    """Return the name of the limit that bounds the body of the route of that name."""
    return BODY_LIMITS.get(route, JSON_LIMIT)


def change(name: str) -> str:
    """Return how the limit of that name is changed, for the message of whoever went over it."""
    return f"{PREFIX}{name.upper()} at the Master changes the limit"
