"""Reading a job's log: whole, or as it grows."""

from __future__ import annotations

from titan_sdk.api import segment
from titan_sdk.observe import ObserveCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FETCH_BYTES_MAX = 16 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
FOLLOW_S = 25
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def dropped_line(headers: Mapping[str, str]) -> str:
    """Return our line for the bytes that an answer says are missing behind those it brought; "" for none."""
    count = int(headers.get("titan-log-dropped", "0"))
    return f"[titan] {count} bytes dropped here: {headers['titan-log-dropped-why']}\n" if count else ""


class LogText:
    r"""Pieces of a log as text. Bytes that are not UTF-8 become U+FFFD; where some are missing is a line of ours.

    Where a piece begins behind what is not shown (`whole` is False, or bytes are missing before it), the rest of a
    character is no error of the log and left out. Example: ``text.add(b"caf\xc3"); text.add(b"\xa9"); text.end()``.
    """

    def __init__(self, *, whole: bool = True) -> None:
        import codecs

        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._cut = not whole
        self._in_line = False

    def add(self, data: bytes, missing: str = "") -> str:
        """Return the text of `data`, and `missing`, the line for what is missing behind it."""
        if self._cut and data:
            data = data[:3].lstrip(CONTINUATION_BYTES) + data[3:]
            self._cut = False
        text = self._decode(data, bool(missing))
        if text:
            self._in_line = text[-1] != "\n"
        if missing:
            text += ("\n" if self._in_line else "") + missing
            self._cut, self._in_line = True, False
        return text

    def end(self) -> str:
        """Return what a character was begun with and never ended."""
        return self._decode(b"", True)


class LogCalls(ObserveCalls):
    """The calls of TitanClient that read logs."""

    def fetch_logs(self, id: str) -> str:  # noqa: A002 - the word people use
        """Return what a job printed, stdout and stderr in order: of its last attempt, complete once it has ended.

        Bytes that are not UTF-8 are shown as U+FFFD. Of more than 16 MiB it is the tail; `follow_logs` gives all.
        Where bytes were dropped, because a log has a limit or a disk was full, one line of ours says how many.
        `id` is a job's id, or `run/job`. Example: ``client.fetch_logs("train_model")``. Raises NotFound.
        """
        run_id, job_id = self.find_job(id)
        path = f"runs/{run_id}/jobs/{segment(job_id)}/log"
        answer = self._transport.call("GET", path, query={"offset": -FETCH_BYTES_MAX, "limit": FETCH_BYTES_MAX})
        headers = answer.headers
        text = LogText(whole=headers["titan-log-offset"] == "0")
        attempt, total = int(headers["titan-log-attempt"]), int(headers["titan-log-total"])
        found = [text.add(answer.body, dropped_line(headers))]
        while (at := int(headers["titan-log-next"])) < total:
            query = {"offset": at, "limit": min(FETCH_BYTES_MAX, total - at), "attempt": attempt}
            answer = self._transport.call("GET", path, query=query)
            headers = answer.headers
            found.append(text.add(answer.body, dropped_line(headers)))
        return "".join(found) + text.end()

    def follow_logs(self, id: str) -> Iterator[str]:  # noqa: A002
        """Yield a job's log as it grows, from its beginning until the job has ended; pieces are not lines.

        When the job is tried again, the log of the new attempt follows. Raises NotFound.
        Example: ``for text in client.follow_logs("train_model"): print(text, end="")``.
        """
        run_id, job_id = self.find_job(id)
        path = f"runs/{run_id}/jobs/{segment(job_id)}"
        attempt = max(self._get(path)["attempt"], 1)
        while True:
            text = LogText()
            for data, missing in self._follow_attempt(f"{path}/log", attempt):
                if shown := text.add(data, missing):
                    yield shown
            if rest := text.end():
                yield rest
            job = self._get(path)
            if job["attempt"] <= attempt and job["ended_at"] is not None:
                return
            attempt += 1

    def _follow_attempt(self, path: str, attempt: int) -> Iterator[tuple[bytes, str]]:
        at = 0
        while True:
            query = {"offset": at, "limit": PIECE_BYTES, "attempt": attempt, "follow_s": FOLLOW_S}
            answer = self._transport.call("GET", path, query=query, wait_s=FOLLOW_S)
            yield answer.body, dropped_line(answer.headers)
            at = int(answer.headers["titan-log-next"])
            if answer.headers["titan-log-complete"] == "true" and at >= int(answer.headers["titan-log-total"]):
                return
