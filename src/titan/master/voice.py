"""The Master's own log: what it says of others cannot pass for a line of its own, and cannot steer a terminal."""

import logging
from types import TracebackType
from typing import TextIO

from titan.model.ids import one_line

FORMAT = "%(asctime)s titan master: %(levelname)s %(message)s"
_Exception = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class OneLine(logging.Formatter):
    """One line a record, with control characters escaped; a traceback stands below it behind bars."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is logging's
        """Return the line."""
        return one_line(super().formatMessage(record))

    def formatException(self, ei: _Exception) -> str:  # noqa: N802 - likewise
        """Return the traceback."""
        return "\n".join(f"  | {one_line(line)}" for line in super().formatException(ei).split("\n"))


def speak(stream: TextIO) -> None:
    """Have everything that is logged go to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine(FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
