"""Titan's Python SDK: what a script, a service or an agent imports to submit and observe work.

Example::

    from titan_sdk import TitanClient, TitanJob

    client = TitanClient()
    run = client.submit_dag("nightly", [TitanJob(job_id="extract", filename="etl/extract.py")])
    print(run.wait().status, client.fetch_logs("extract"))
"""

from titan_sdk.client import TitanClient
from titan_sdk.errors import (
    Conflict,
    Denied,
    FileMissing,
    Internal,
    Invalid,
    NotFound,
    RunFailed,
    StorageFull,
    TimedOut,
    TitanError,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from titan_sdk.job import TitanJob
from titan_sdk.run import Run

__all__ = [
    "Conflict",
    "Denied",
    "FileMissing",
    "Internal",
    "Invalid",
    "NotFound",
    "Run",
    "RunFailed",
    "StorageFull",
    "TimedOut",
    "TitanClient",
    "TitanError",
    "TitanJob",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]
