"""Files at the Master: contents by hash, and the registry of names that jobs may use."""

from __future__ import annotations

import os

from titan_sdk.api import Api, segment
from titan_sdk.errors import FileMissing, Invalid
from titan_sdk.idempotency import random_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

BYTES = "application/octet-stream"
PIECE_BYTES = 64 * 1024


class FileCalls(Api):
    """The calls of TitanClient that send files."""

    def upload_file(self, path: str | os.PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Put a file into the Master's registry, under its base name or `name`; the newest wins.

        A job whose `filename` is not on its submitter's disk gets this one, as it is when the job is submitted.
        Returns a dict with `name`, `sha256` and `size`. Example: ``client.upload_file("scripts/patch.py")``.
        Raises FileMissing, Invalid.
        """
        path = _text_of(path)
        _begin_of(path)
        name = name or os.path.basename(path)
        if "/" in str(name):
            raise Invalid(f"name {name!r} has the character '/': give a name without folders")
        answer = self._transport.call(
            "PUT", f"registry/{segment(name)}", body=lambda: _pieces(path), content_type=BYTES, key=random_key()
        )
        entry: dict[str, Any] = answer.json()
        return entry

    def deploy_script(self, path: str | os.PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Put a script into the registry, after a look whether a job could run it; else as `upload_file`.

        Example: ``client.deploy_script("agents/autonomous_agent.py")``. Raises Invalid for a file that is neither
        ``.py`` nor begins with a shebang line.
        """
        path = _text_of(path)
        if _begin_of(path) != b"#!" and not (name or path).endswith(".py"):
            raise Invalid(
                f"{path} is no script that a job could run: it is neither .py nor begins with #!",
                hint="upload_file keeps any other file",
            )
        return self.upload_file(path, name)

    def _put_blobs(self, contents: Mapping[str, bytes | str]) -> None:
        """Send each content (bytes, or the path of a file) under its SHA-256."""
        for digest, content in contents.items():
            self._put_blob(digest, content)

    def _put_blob(self, digest: str, content: bytes | str) -> None:
        def body() -> bytes | Iterator[bytes]:
            return content if isinstance(content, bytes) else _pieces(content)

        self._transport.call("PUT", f"blobs/{digest}", body=body, content_type=BYTES, key=random_key())


def _text_of(path: str | os.PathLike[str]) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise Invalid(f"path is {path!r}, of type {type(path).__name__}", hint="give the path of a file") from None


def _begin_of(path: str) -> bytes:
    import stat

    try:
        # Before it is opened: to open a pipe waits for somebody who writes into it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a regular file")
        with open(path, "rb") as file:
            return file.read(2)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None


def _pieces(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: str, error: OSError | ValueError) -> Invalid:
    if isinstance(error, ValueError):  # a NUL, or a lone surrogate
        return Invalid(f"{path!a} names no file")
    kind = FileMissing if isinstance(error, FileNotFoundError) else Invalid
    return kind(f"{path} cannot be read: {error.strerror or error}", hint=f"looked for at {os.path.abspath(path)}")
