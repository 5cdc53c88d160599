"""How a fork tells why it could not become the job: through a pipe that is at its end once it has.

The pipe closes itself at exec, and a warm one closes it.
"""

import os
import struct

_FAILURE = struct.Struct("<ii")


def pipe() -> tuple[int, int]:
    """Return the ends to read and to write of a new one. Raises OSError."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def tell(writing: int, error: OSError, stage: int) -> None:
    """Tell the launcher why, and at which STAGE."""
    os.write(writing, _FAILURE.pack(error.errno or 0, stage))


def read(reading: int) -> tuple[int, int] | None:
    """Return (errno, stage) from a failure pipe at its end, None when the program runs.

    Raises BlockingIOError while neither is known.
    """
    data = os.read(reading, _FAILURE.size)
    if not data:
        return None
    code, stage = _FAILURE.unpack(data)
    return code, stage
