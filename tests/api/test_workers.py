"""Workers as people see them, and having one leave."""

from tests.api.master import Master
from titan.model.wire import Drain, Draining, Grant, Renew, RenewAck, Returned


def listed(master: Master, name: str) -> dict[str, object]:
    [found] = [worker for worker in master.get("/workers").json["workers"] if worker["name"] == name]
    return dict(found)


def test_a_drained_worker_hears_of_it_and_gets_nothing_more(master: Master) -> None:
    with master.worker(name="leaver", slots=1) as worker:
        run = master.submit(worker.job("sent"))["id"]
        grant = worker.grant()
        answer = master.post("/workers/leaver/drain")
        assert (answer.status, answer.json["name"], answer.json["draining"]) == (200, "leaver", True)
        assert (answer.json["running"], answer.json["devices"]) == (1, 0)
        while not any(isinstance(message, Drain) for message in worker.hear()):
            pass
        worker.say(Returned(grant.fence))
        while master.get(f"/runs/{run}/jobs/sent").json["state"] != "QUEUED":
            pass
        assert master.get(f"/runs/{run}/jobs/sent/explain").json["reason"] == "WORKERS_DRAINING"
        assert listed(master, "leaver")["draining"] is True
    with master.worker(name="leaver", slots=1, incarnation="2") as worker:
        worker.end(worker.start())
        assert listed(master, "leaver")["draining"] is False


def test_a_worker_nobody_knows_cannot_be_drained(master: Master) -> None:
    for name in ("nobody", "..%2Fup", "x" * 300):
        answer = master.post(f"/workers/{name}/drain")
        assert (answer.status, answer.code) == (404, "not_found"), name


def test_what_a_leaving_worker_gives_back_goes_to_another_and_nothing_comes_to_it_again(master: Master) -> None:
    with master.worker(name="leaving", slots=2, capabilities=("PAIR",)) as leaving:
        jobs = [{**leaving.job(f"pair{number}"), "requirement": ["PAIR"]} for number in range(5)]
        run = master.submit(*jobs)["id"]
        grants = [leaving.grant(), leaving.grant()]
        with master.worker(name="other", slots=5, capabilities=("PAIR",)) as other:
            leaving.say(Draining(), *(Returned(grant.fence) for grant in grants))
            taken = [other.start() for _ in jobs]
            assert {(grant.job_id, grant.attempt) for grant in taken} == {(f"pair{number}", 1) for number in range(5)}
            for grant in taken:
                other.end(grant)
            assert master.get(f"/runs/{run}/wait?timeout_s=60").json["run"]["state"] == "COMPLETED"
        # An answer after all that was decided: no grant stands before it.
        leaving.say(Renew(1))
        while not list(leaving.heard(RenewAck)):
            leaving.hear()
        assert list(leaving.heard(Grant)) == []


def test_the_overview_has_what_waits_and_why_what_runs_and_how_much_went_by(master: Master) -> None:
    with master.worker(name="busy", slots=1) as worker:
        master.submit(worker.job("runs"), worker.job("waits"), name="overseen")
        grant = worker.start()
        while not any(job["worker"] == "busy" for job in master.get("/overview").json["running"]):
            pass
        found = master.get("/overview").json
        [running] = [job for job in found["running"] if job["worker"] == "busy"]
        assert (running["run_name"], running["job_id"], running["attempt"]) == ("overseen", "runs", 1)
        assert running["started_at"]
        [queue] = [queue for queue in found["waiting"] if queue["requirement"] == ["busy"]]
        assert (queue["job_id"], queue["jobs"], queue["reason"]) == ("waits", 1, "ALL_SLOTS_BUSY")
        assert queue["ready_at"] <= found["now"]
        assert [each["running"] for each in found["workers"] if each["name"] == "busy"] == [1]
        before = found["stats"]["came"].get("COMPLETED", 0)
        worker.end(grant)
        worker.end(worker.start())
        while master.get("/stats").json["came"].get("COMPLETED", 0) < before + 2:
            pass
