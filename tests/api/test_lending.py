"""Jobs that wait for runs below them, over HTTP: the slot is lent while they ask, and theirs again with the answer."""

import http.client
import threading
from collections.abc import Iterator

import pytest

from tests.api.master import Master, Worker
from titan.core import lending
from titan.model.wire import Grant, Lend


class Asking:
    """A request of a job that waits, on a thread of its own."""

    def __init__(self, master: Master, path: str, token: str) -> None:
        self.answers: list[bool] = []
        self._thread = threading.Thread(target=self._ask, args=(master, path, token))
        self._thread.start()

    def _ask(self, master: Master, path: str, token: str) -> None:
        self.answers.append(master.get(path, token=token).json["done"])

    def done(self) -> bool:
        self._thread.join(60)
        return self.answers[0]


def lend(worker: Worker) -> Lend:
    """Return the next word about a lent slot."""
    while True:
        for message in worker.heard(Lend):
            return message
        worker.hear()


@pytest.fixture
def one_slot(master: Master) -> Iterator[Worker]:
    with Worker(master.port, slots=1) as worker:
        yield worker


def parent_and_child(master: Master, worker: Worker) -> tuple[Grant, str]:
    master.submit(worker.job("parent"))
    parent = worker.start()
    return parent, master.submit(worker.job("child"), token=parent.token)["id"]


@pytest.mark.parametrize("path", ["/runs/{}/wait", "/runs/{}/jobs/child/wait"])
def test_the_child_runs_in_the_slot_of_its_parent_that_waits(master: Master, one_slot: Worker, path: str) -> None:
    parent, child = parent_and_child(master, one_slot)
    asking = Asking(master, path.format(child), parent.token)
    assert lend(one_slot) == Lend(parent.fence, on=True)
    told = master.get(f"/runs/{parent.run_id}/jobs/parent/explain").json
    assert told["reason"] == "WAITS_FOR_RUN_BELOW"
    assert child[:8] in told["message"]
    one_slot.end(one_slot.start())
    assert asking.done()
    assert lend(one_slot) == Lend(parent.fence, on=False)
    one_slot.end(parent)
    assert master.get(f"/runs/{parent.run_id}/wait").json["run"]["state"] == "COMPLETED"


def test_a_run_further_below_counts_and_one_beside_does_not(master: Master, one_slot: Worker) -> None:
    parent, child = parent_and_child(master, one_slot)
    beside = master.submit({"job_id": "o", "requirement": ["NOWHERE"]})["id"]
    own = f"/runs/{parent.run_id}/jobs/parent/wait"
    for path in (f"/runs/{beside}/wait", own, f"/runs/{child}/wait?timeout_s=0"):
        joint = "&" if "?" in path else "?timeout_s=0.01"
        assert not master.get(path + joint, token=parent.token).json["done"]
    asking = Asking(master, f"/runs/{child}/wait", parent.token)
    assert lend(one_slot) == Lend(parent.fence, on=True), "the first that is lent for"
    middle = one_slot.start()
    deep = master.submit(one_slot.job("deep"), token=middle.token)["id"]
    one_slot.end(middle)
    assert asking.done()
    assert lend(one_slot) == Lend(parent.fence, on=False)
    second = Asking(master, f"/runs/{deep}/wait", parent.token)
    assert lend(one_slot) == Lend(parent.fence, on=True)
    one_slot.end(one_slot.start())
    assert second.done()
    one_slot.end(parent)


def test_a_job_does_not_lend_for_what_another_job_of_its_run_submitted(master: Master) -> None:
    with Worker(master.port, slots=2) as worker:
        master.submit(worker.job("one"), worker.job("two"))
        one, two = worker.start(), worker.start()
        below = master.submit({"job_id": "c", "requirement": ["NOWHERE"]}, token=one.token)["id"]
        middle = master.submit(worker.job("m"), token=one.token)["id"]
        for run_id in (below, middle):
            assert not master.get(f"/runs/{run_id}/wait?timeout_s=0.01", token=two.token).json["done"]
        worker.end(one)
        inner = worker.start()
        deep = master.submit({"job_id": "d", "requirement": ["NOWHERE"]}, token=inner.token)["id"]
        assert not master.get(f"/runs/{deep}/wait?timeout_s=0.01", token=two.token).json["done"]
        worker.end(two)
        worker.end(inner)
        master.post(f"/runs/{below}/cancel")
        master.post(f"/runs/{deep}/cancel")
        assert master.get(f"/runs/{middle}/wait").json["done"]
        assert not list(worker.heard(Lend))


def test_a_cut_connection_and_an_answer_that_was_not_final_keep_it_for_a_while(
    master: Master, one_slot: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lending, "KEPT_MS", 100)
    parent, child = parent_and_child(master, one_slot)
    assert not Asking(master, f"/runs/{child}/wait?timeout_s=0.01", parent.token).done()
    assert [lend(one_slot).on, lend(one_slot).on] == [True, False]
    connection = http.client.HTTPConnection("127.0.0.1", master.port)
    headers = {"Authorization": f"Bearer {parent.token}"}
    connection.request("GET", f"/api/v1/runs/{child}/wait", headers=headers)
    assert lend(one_slot).on
    connection.close()
    assert not lend(one_slot).on, "long before the 25 s that the wait would have lasted"
    inner = one_slot.start()
    one_slot.end(inner)
    one_slot.end(parent)


def test_cancelling_a_run_reaches_what_lives_below_a_run_that_has_ended(master: Master) -> None:
    with Worker(master.port) as worker:
        parent, child = parent_and_child(master, worker)
        middle = worker.start()
        deep = master.submit({"job_id": "deep", "requirement": ["NOWHERE"]}, token=middle.token)["id"]
        worker.end(middle)
        assert master.get(f"/runs/{child}/wait").json["done"]
        assert master.post(f"/runs/{parent.run_id}/cancel").status == 200
        assert master.get(f"/runs/{deep}").json["state"] == "CANCELLED"
        worker.end(parent)
        assert master.get(f"/runs/{child}").json["state"] == "COMPLETED"
