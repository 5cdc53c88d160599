"""Files of the caller as they are sent: looked at before, read in pieces."""

from __future__ import annotations

import os

from titan_sdk.errors import FileMissing, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES = "application/octet-stream"
PIECE_BYTES = 64 * 1024


def text_of(path: str | os.PathLike[str]) -> str:
    """Return a path as text. Raises Invalid for what is none."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise Invalid(f"path is {path!r}, of type {type(path).__name__}", hint="give the path of a file") from None


def begin_of(path: str) -> bytes:
    """Return the first two bytes of a file. Raises FileMissing, Invalid for what is no regular file."""
    import stat

    try:
        # Before it is opened: to open a pipe waits for somebody who writes into it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a regular file")
        with open(path, "rb") as file:
            return file.read(2)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def pieces_of(path: str) -> Iterator[bytes]:
    """Yield the content of a file. Raises as `begin_of` does."""
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: str, error: OSError | ValueError) -> Invalid:
    """Return what a caller is told whose file cannot be read."""
    if isinstance(error, ValueError):  # a NUL, or a lone surrogate
        return Invalid(f"{path!a} names no file")
    kind = FileMissing if isinstance(error, FileNotFoundError) else Invalid
    return kind(f"{path} cannot be read: {error.strerror or error}", hint=f"looked for at {os.path.abspath(path)}")
