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


class ArtifactTotals(msgspec.Struct, frozen=True, gc=False):
    """How many versions are kept, how many bytes their contents have (each counted once), and how many marks."""

    versions: int = 0
    bytes: int = 0
    marks: int = 0
