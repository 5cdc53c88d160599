"""The folder of artifacts' contents: large ones are files under their SHA-256, small ones are rows.

A file is taken away when no row names its content any more, and that is the delicate part: the same content may be
arriving again at that moment. What has settled and waits for its transaction is therefore counted here, and `collect`
looks, while nobody can settle anything, whether a file is waited for or known to the database.
"""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from titan.model.ids import SHA256_PATTERN
from titan.model.limits import DEFAULT_LIMITS
from titan.storage.blobs import INCOMING, BlobFiles, Incoming
from titan.storage.errors import ContentMissing

# What stays free for the database, which cannot do its work on a full disk.
SPARE_BYTES = 32 * 1024 * 1024


class NoRoom(OSError):
    """The disk has room, but what is left is kept for the database."""


class ArtifactFiles:
    """`<folder>/ab/cdef...`, mode 0600. Any thread may use it."""

    def __init__(
        self, folder: Path, inline_bytes_max: int = DEFAULT_LIMITS.blob_inline_bytes_max, spare_bytes: int = SPARE_BYTES
    ) -> None:
        self._files = BlobFiles(folder, inline_bytes_max)
        self._folder = folder
        self._spare_bytes = spare_bytes
        self._waiting: Counter[str] = Counter()
        self._turn = threading.Lock()

    def begin(self) -> Incoming:
        """Return a place for content that arrives."""
        return Incoming(self._folder, self._files.inline_bytes_max)

    def add(self, content: Incoming, piece: bytes) -> None:
        """Take the next piece in. Raises OSError when the disk refuses, or would be full."""
        if shutil.disk_usage(self._folder).free < self._spare_bytes + len(piece):
            raise NoRoom(f"less than {self._spare_bytes >> 20} MiB would be free, which the Master's database needs")
        content.add(piece)

    def settle(self, content: Incoming) -> tuple[str, bytes | None]:
        """Make it durable and return its hash and, when it is small, the data that has to be a row.

        A file is kept from being collected until `release`. Raises OSError.
        """
        sha256 = content.hash.hexdigest()
        with self._turn:
            self._waiting[sha256] += 1
        data = content.kept()
        try:
            if data is None:
                content.settle(self._files.path(sha256))
        except BaseException:
            self.release(sha256)
            raise
        return sha256, data

    def release(self, sha256: str) -> None:
        """What `settle` returned is known to the database, or will never be."""
        with self._turn:
            self._waiting[sha256] -= 1
            if not self._waiting[sha256]:
                del self._waiting[sha256]

    def collect(self, sha256: str, is_known: Callable[[str], bool]) -> bool:
        """Take a file away unless somebody waits for it or `is_known`; return whether it is away."""
        with self._turn:
            if sha256 in self._waiting or is_known(sha256):
                return False
            self._files.path(sha256).unlink(missing_ok=True)
            return True

    def open(self, sha256: str, size: int) -> int:
        """Return a descriptor to read a large content from. Raises ContentMissing when its file is not whole."""
        path = self._files.path(sha256)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise ContentMissing(
                f"the artifact's file {path} is gone: publish it again, or restore a backup"
            ) from error
        found = os.fstat(descriptor).st_size
        if found != size:
            os.close(descriptor)
            raise ContentMissing(f"the artifact's file {path} has {found} bytes, not {size}: restore a backup")
        return descriptor

    def kept(self) -> Iterator[str]:
        """Yield the hash of every file there is."""
        for path in self._folder.glob("??/*"):
            sha256 = path.parent.name + path.name
            if not path.name.startswith(INCOMING) and SHA256_PATTERN.fullmatch(sha256):
                yield sha256
