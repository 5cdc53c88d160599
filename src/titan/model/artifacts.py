"""A version of an artifact as the storage has it."""

import msgspec


class ArtifactRow(msgspec.Struct, frozen=True, gc=False):
    """One version of one artifact. `run_id` and the rest name the attempt that published it; "" and 0 for no job."""

    key: str
    version: int
    name: str
    sha256: str
    size: int
    created_ms: int
    created_by: str
    run_id: str
    job_id: str
    attempt: int
