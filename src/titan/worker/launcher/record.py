"""The lines of a record on disk that two processes append to and that must be readable whenever they die.

A line is one `write` to a descriptor opened with O_APPEND, so lines of worker and launcher never mix. It
begins with its newline: what is left of a torn line then ends where the next one begins. Its checksum says
whether it is whole; one that is not is known to be unknown, and nothing is guessed from it.
"""

import os
from binascii import crc32

from titan.worker.launcher.frames import REPORT_BYTES, Report, boot_ms, encode_report, take_reports

_REPORT = b"R"
_REPORT_HEX = 2 * REPORT_BYTES


def append(descriptor: int, payload: bytes) -> bool:
    """Add one line; False when it did not become whole. `payload` has no newline in it."""
    line = b"\n%08x %b" % (crc32(payload), payload)
    try:
        return os.write(descriptor, line) == len(line)
    except OSError:
        return False


def lines(data: bytes) -> tuple[list[bytes], bool]:
    """Return the payloads of all whole lines in order, and whether there was nothing else."""
    found = []
    whole = True
    for line in data.split(b"\n"):
        if line:
            check, _, payload = line.partition(b" ")
            if check == b"%08x" % crc32(payload):
                found.append(payload)
            else:
                whole = False
    return found, whole


def of_report(report: Report) -> bytes:
    """Return the payload that records `report`, with the boot time of now."""
    return b"%b%b%d" % (_REPORT, encode_report(report).hex().encode(), boot_ms())


def report_in(payload: bytes) -> tuple[Report, int] | None:
    """Return the report a payload records and the boot time in ms of its line; None when it records another thing."""
    if not payload.startswith(_REPORT):
        return None
    end = len(_REPORT) + _REPORT_HEX
    (report,) = take_reports(bytearray.fromhex(payload[len(_REPORT) : end].decode()))
    return report, int(payload[end:])
