"""Content by its SHA-256: small blobs are rows, larger ones files, fsynced before a row names them."""

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection

from titan.model.store import UploadBlob


class BlobFiles:
    """The folder of large blobs: `<folder>/ab/cdef...`, mode 0600."""

    def __init__(self, folder: Path, inline_bytes_max: int) -> None:
        raise NotImplementedError

    def save(self, chunks: Iterable[bytes], now_ms: int, sha256: str | None = None) -> UploadBlob:
        """Take content in and return the operation that makes it known; durable once that is committed.

        Any thread. Raises ValueError when it does not hash to `sha256`, OSError when the disk refuses.
        """
        raise NotImplementedError(chunks, now_ms, sha256)

    def path(self, sha256: str) -> Path:
        """Return where the file of a large blob is. Raises ValueError when `sha256` is not 64 hex digits."""
        raise NotImplementedError(sha256)

    def get(self, connection: Connection, sha256: str) -> bytes | None:
        """Return the content; None when it is not known. Raises StorageError when its file is gone."""
        raise NotImplementedError(connection, sha256)
