"""The files a submission names, read from the caller's disk, and their contents once per hash."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

BLOB_INLINE_BYTES_MAX = 64 * 1024
BLOBS_INLINE_BYTES_MAX = 6 * 1024 * 1024
READ_BYTES = 256 * 1024
PIPELINE_SUFFIXES = (".yaml", ".yml")  # no script ends like this, and every pipeline file should


class Script:
    """What a file name stands for, found out once.

    `name` is what is sent. `digest` is the SHA-256 of the content, "" when no such file is on this disk; `path`
    where it was looked for; `source_path` the path to record, if any; `problem` says why it cannot be read.
    """

    __slots__ = ("digest", "name", "path", "problem", "source_path")

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.digest = ""
        self.source_path = ""
        self.problem = ""


class Scripts:
    """The contents that a submission needs: small ones to send along, large ones to PUT first.

    `inline` maps SHA-256 to base64, `large` maps it to the content or to the path of the file that holds it.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self.inline: dict[str, str] = {}
        self.large: dict[str, bytes | str] = {}
        self._inline_bytes = 0
        self._by_name: dict[str, Script] = {}
        self._environ = environ

    def named(self, name: str) -> Script:
        """Return what `name`, a path on this disk or a name at the Master, stands for. Reads the file once."""
        script = self._by_name.get(name)
        if script is None:
            script = self._by_name[name] = self._find(name)
        return script

    def of_content(self, content: bytes) -> str:
        """Keep `content` for sending; return its SHA-256."""
        from hashlib import sha256

        digest = sha256(content).hexdigest()
        if digest not in self.inline and digest not in self.large:
            room = self._inline_bytes + len(content) <= BLOBS_INLINE_BYTES_MAX
            if len(content) <= BLOB_INLINE_BYTES_MAX and room:
                from base64 import b64encode

                self.inline[digest] = b64encode(content).decode()
                self._inline_bytes += len(content)
            else:
                self.large[digest] = content
        return digest

    def _find(self, name: str) -> Script:
        script = Script(self._lasting(name), os.path.abspath(name))
        try:
            if os.path.lexists(script.path):
                script.digest = self._read(script.path)
        except OSError as error:
            script.problem = error.strerror or str(error)
        # In a job the path is private to the attempt, and the next attempt must submit the same bytes.
        if script.digest and "TITAN_JOB_ID" not in self._environ:
            script.source_path = script.path
        return script

    def _lasting(self, name: str) -> str:
        """Return `name` without the attempt's private folder, for the same reason."""
        folder = self._environ.get("TITAN_WORKDIR")
        if folder and os.path.isabs(name):
            for root in (folder, os.path.realpath(folder)):
                if name.startswith(root + os.sep):
                    return name[len(root) + 1 :]
        return name

    def _read(self, path: str) -> str:
        import stat

        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a regular file")
        with open(path, "rb") as file:
            content = file.read(BLOB_INLINE_BYTES_MAX + 1)
            if len(content) <= BLOB_INLINE_BYTES_MAX:
                return self.of_content(content)
            digest = _rest_hashed(content, file)
        self.large[digest] = path
        return digest


def _rest_hashed(begin: bytes, file: BinaryIO) -> str:
    from hashlib import sha256

    digest = sha256(begin)
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
