"""The log of an attempt that was lost with its worker ends with a line that says so."""

import pytest

from tests.api.master import Master
from titan.model.wire import Output

LINE = b"[titan] lost with worker doomed\n"


@pytest.mark.parametrize(
    ("wrote", "log"),
    [(b"", LINE), (b"half a line", b"half a line\n" + LINE), (b"a line\n", b"a line\n" + LINE)],
)
def test_a_lost_attempt_says_with_whom(master: Master, wrote: bytes, log: bytes) -> None:
    with master.worker(name="doomed", incarnation="first") as worker:
        run = master.submit(worker.job({"job_id": "a", "on_lost": "fail"}))["id"]
        grant = worker.start()
        if wrote:
            worker.say(Output(grant.fence, 0, wrote))
            master.get(f"/runs/{run}/jobs/a/log?follow_s=25")
    with master.worker(name="doomed", incarnation="second", predecessor="first"):
        assert master.get(f"/runs/{run}/jobs/a/wait").json["job"]["reason"] == "LOST_WITH_WORKER"
    path = f"/runs/{run}/jobs/a/log"
    whole = master.get(path)
    assert (whole.body, whole.headers["titan-log-complete"]) == (log, "true")
    assert whole.headers["titan-log-total"] == str(len(log))
    for offset in range(len(log) + 1):
        assert master.get(f"{path}?offset={offset}").body == log[offset:]
        assert master.get(f"{path}?offset={offset}&limit=3").body == log[offset : offset + 3]
    assert master.get(f"{path}?offset=-5").body == log[-5:]
