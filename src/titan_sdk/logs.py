"""Reading a job's log: whole, or as it grows."""

from __future__ import annotations

from titan_sdk.api import segment
from titan_sdk.observe import ObserveCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FETCH_BYTES_MAX = 16 * 1024 * 1024
PIECE_BYTES = 1024 * 1024
FOLLOW_S = 25
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


class LogCalls(ObserveCalls):
    """The calls of TitanClient that read logs."""

    def fetch_logs(self, id: str) -> str:  # noqa: A002 - the word people use
        """Return what a job printed, stdout and stderr in order: of its last attempt, complete once it has ended.

        Bytes that are not UTF-8 are shown as U+FFFD. Of more than 16 MiB it is the tail; `follow_logs` gives all.
        `id` is a job's id, or `run/job`. Example: ``client.fetch_logs("train_model")``. Raises NotFound.
        """
        run_id, job_id = self.find_job(id)
        query = {"offset": -FETCH_BYTES_MAX, "limit": FETCH_BYTES_MAX}
        answer = self._transport.call("GET", f"runs/{run_id}/jobs/{segment(job_id)}/log", query=query)
        # A tail may begin inside a character, whose rest is no error of the log.
        whole = answer.headers["titan-log-offset"] == "0"
        return (answer.body if whole else answer.body.lstrip(CONTINUATION_BYTES)).decode("utf-8", "replace")

    def follow_logs(self, id: str) -> Iterator[str]:  # noqa: A002
        """Yield a job's log as it grows, from its beginning until the job has ended; pieces are not lines.

        When the job is tried again, the log of the new attempt follows. Raises NotFound.
        Example: ``for text in client.follow_logs("train_model"): print(text, end="")``.
        """
        import codecs

        run_id, job_id = self.find_job(id)
        path = f"runs/{run_id}/jobs/{segment(job_id)}"
        attempt = max(self._get(path)["attempt"], 1)
        while True:
            decode = codecs.getincrementaldecoder("utf-8")("replace").decode
            for data in self._follow_attempt(f"{path}/log", attempt):
                if text := decode(data):
                    yield text
            if rest := decode(b"", True):
                yield rest
            job = self._get(path)
            if job["attempt"] <= attempt and job["ended_at"] is not None:
                return
            attempt += 1

    def _follow_attempt(self, path: str, attempt: int) -> Iterator[bytes]:
        at = 0
        while True:
            query = {"offset": at, "limit": PIECE_BYTES, "attempt": attempt, "follow_s": FOLLOW_S}
            answer = self._transport.call("GET", path, query=query, wait_s=FOLLOW_S)
            yield answer.body
            at += len(answer.body)
            if answer.headers["titan-log-complete"] == "true" and at >= int(answer.headers["titan-log-total"]):
                return
