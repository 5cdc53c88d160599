"""What follows a job through its tries, and the short ids people type."""

import threading

from tests.api.master import Answer, Master
from tests.api.test_runs import refused, waiting
from titan.model.wire import Output


def marks(answer: Answer) -> tuple[bytes, str]:
    return answer.body, answer.headers["titan-log-complete"]


def test_a_job_that_waits_was_never_tried(master: Master) -> None:
    run = master.submit(waiting("a"))["id"]
    assert master.get(f"/runs/{run}/jobs/a/attempts").json == {"attempts": []}


def test_every_try_is_listed_oldest_first(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job({"job_id": "a", "retries": 1, "retry_backoff_s": 0}))["id"]
        path = f"/runs/{run}/jobs/a"
        worker.end(worker.start(), exit_code=3)
        worker.end(worker.start(), log=b"fine")
        assert master.get(f"{path}/wait").json["done"]
        first, second = master.get(f"{path}/attempts").json["attempts"]
        assert (first["attempt"], first["state"], first["exit_code"]) == (1, "ENDED", 3)
        assert (second["attempt"], second["exit_code"], second["log_bytes"]) == (2, 0, 4)
        assert int(second["fence"]) > int(first["fence"])
        assert first["granted_at"] <= first["started_at"] <= first["ended_at"] <= second["granted_at"]


def test_a_try_to_come_can_be_followed_and_ends_with_the_job(master: Master) -> None:
    with master.worker() as worker:
        run = master.submit(worker.job({"job_id": "a", "retries": 1, "retry_backoff_s": 0}))["id"]
        path = f"/runs/{run}/jobs/a"
        assert marks(master.get(f"{path}/log?attempt=1&follow_s=0.001")) == (b"", "false")
        worker.end(worker.start(), exit_code=3, log=b"first")
        assert marks(master.get(f"{path}/log?attempt=1&offset=5&follow_s=25")) == (b"", "true")
        assert marks(master.get(f"{path}/log?attempt=1")) == (b"first", "true")
        answers: list[Answer] = []
        follower = threading.Thread(target=lambda: answers.append(master.get(f"{path}/log?attempt=2&follow_s=25")))
        follower.start()
        grant = worker.start()
        worker.say(Output(grant.fence, 0, b"second"))
        follower.join(30)
        assert marks(answers[0]) == (b"second", "false")
        worker.end(grant, log=b"second")
        assert master.get(f"{path}/wait").json["done"]
        assert marks(master.get(f"{path}/log?attempt=3&follow_s=25")) == (b"", "true")
        refused(master.get(f"{path}/log?attempt=3"), 404, "not_found", "no attempt 3", "1, 2")


def test_a_short_id_names_one_run_and_is_no_longer_than_needed(master: Master) -> None:
    runs = [master.submit(waiting("a"))["id"] for _ in range(300)]
    short = {}
    for begin in range(0, len(runs), 100):
        short |= master.get(f"/runs/short-ids?ids={','.join(runs[begin : begin + 100])}").json["short_ids"]
    assert set(short) == set(runs)
    for run, prefix in short.items():
        assert run.startswith(prefix)
        assert len(prefix) >= 4
        assert [other for other in runs if other.startswith(prefix)] == [run]
        if len(prefix) > 4:
            assert len([other for other in runs if other.startswith(prefix[:-1])]) > 1
        assert master.get(f"/runs/{prefix}").json["id"] == run


def test_short_ids_are_asked_with_full_ids_only(master: Master) -> None:
    refused(master.get("/runs/short-ids?ids=7f3a"), 422, "invalid", "7f3a", "32 hex digits")
    refused(master.get("/runs/short-ids?ids="), 422, "invalid", "32 hex digits")
    many = ",".join(["0" * 32] * (master.limits.page_rows_max + 1))
    assert master.get(f"/runs/short-ids?ids={many}").status >= 400
