"""Content by its SHA-256: small blobs are rows, larger ones files, fsynced before a row names them.

A file without a row (its transaction failed) is content nobody knows; the same content is never written twice.
"""

import hashlib
import os
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import bindparam, select

from titan.model.ids import SHA256_PATTERN
from titan.model.limits import DEFAULT_LIMITS
from titan.model.store import UploadBlob
from titan.storage.connection import Connection, Statement
from titan.storage.errors import ContentMissing
from titan.storage.files import make_folder, sync_folder, write_all
from titan.storage.tables import blobs

INCOMING = "incoming-"
_GET = Statement(select(blobs.c.size, blobs.c.data).where(blobs.c.sha256 == bindparam("sha256")), "sha256")


class BlobFiles:
    """The folder of large blobs: `<folder>/ab/cdef...`, mode 0600. Any thread may use it."""

    def __init__(self, folder: Path, inline_bytes_max: int = DEFAULT_LIMITS.blob_inline_bytes_max) -> None:
        make_folder(folder)
        self._folder = folder
        self.inline_bytes_max = inline_bytes_max
        for left_over in folder.glob(INCOMING + "*"):
            left_over.unlink()

    def save(self, chunks: Iterable[bytes], now_ms: int, sha256: str | None = None) -> UploadBlob:
        """Take content in and return the operation that makes it known; durable once that is committed.

        Raises ValueError when it does not hash to `sha256`, OSError when the disk refuses.
        """
        content = Incoming(self._folder, self.inline_bytes_max)
        try:
            for chunk in chunks:
                content.add(chunk)
            found = content.hash.hexdigest()
            if sha256 is not None and found != sha256:
                raise ValueError(f"the content has the SHA-256 {found}, not {sha256}: send it again, whole")
            data = content.kept()
            if data is None:
                content.settle(self.path(found))
            return UploadBlob(found, content.size, data, now_ms)
        finally:
            content.drop()

    def path(self, sha256: str) -> Path:
        """Return where the file of a large blob is. Raises ValueError when `sha256` is not 64 hex digits."""
        if not SHA256_PATTERN.fullmatch(sha256):
            raise ValueError(f"{sha256[:70]!r} is not a SHA-256: give 64 hex digits in lower case")
        return self._folder / sha256[:2] / sha256[2:]

    def get(self, connection: Connection, sha256: str) -> bytes | None:
        """Return the content; None when it is not known. Raises ContentMissing when its file is not whole."""
        row = connection.row(_GET, sha256)
        if row is None:
            return None
        size, data = row
        if data is not None:
            return bytes(data)
        path = self.path(sha256)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise ContentMissing(f"the blob {path} is gone: upload it again, or put it back from a backup") from error
        if len(content) != size:
            raise ContentMissing(f"the blob {path} has {len(content)} bytes, not {size}: put it back from a backup")
        return content


class Incoming:
    """Content that arrives: kept in memory while it is small, then in a file of its own, which `drop` removes.

    Calls from several threads take turns, so that it may be dropped while a piece is still being written.
    """

    def __init__(self, folder: Path, inline_bytes_max: int) -> None:
        self.size = 0
        self.hash = hashlib.sha256()
        self._inline_bytes_max = inline_bytes_max
        self._parts: list[bytes] = []
        self._path = folder / (INCOMING + secrets.token_hex(16))
        self._descriptor: int | None = None
        self._turn = threading.Lock()

    def add(self, chunk: bytes) -> None:
        """Take the next piece in. Raises OSError when the disk refuses."""
        with self._turn:
            self._add(chunk)

    def _add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.hash.update(chunk)
        if self._descriptor is not None:
            write_all(self._descriptor, chunk)
            return
        self._parts.append(chunk)
        if self.size > self._inline_bytes_max:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            write_all(self._descriptor, b"".join(self._parts))
            self._parts.clear()

    def kept(self) -> bytes | None:
        """Return the content if it is in memory, None if it is in the file."""
        return b"".join(self._parts) if self._descriptor is None else None

    def settle(self, path: Path) -> None:
        """Move the file to its place, durably."""
        with self._turn:
            if self._descriptor is not None:
                os.fsync(self._descriptor)
                make_folder(path.parent)
                self._path.replace(path)
                sync_folder(path.parent)

    def drop(self) -> None:
        """Forget it; what has settled stays. Dropping again does nothing."""
        with self._turn:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._path.unlink(missing_ok=True)
                self._descriptor = None
