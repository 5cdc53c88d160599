"""How the stateful suite speaks to its Master and worker, and compares what they show with the model."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from hypothesis.stateful import RuleBasedStateMachine, invariant
from websockets.exceptions import ConnectionClosed

from tests.api.master import TOKEN, Answer, Master, Worker
from tests.api.stateful_model import FINAL, Dict, Refusal, Runs, Spec
from tests.api.stateful_store import Store, coded, told
from titan.model.wire import Ack, Ended, Grant, Held, Stop, Welcome

SLOTS = 500  # more than any example has jobs: what is ready is granted at once
T = TypeVar("T")


class Masters:
    """The Master that the examples share: their runs, keys and workers have names of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.homes = itertools.count(1)
        self.running: Master | None = None

    def get(self) -> Master:
        if self.running is None:
            home = self.folder / f"home{next(self.homes)}"
            home.mkdir()
            self.running = self.start(home)
            self.running.script()
        return self.running

    def start(self, home: Path) -> Master:
        return Master(home).__enter__()

    def restart(self) -> Master:
        home = self.get().home
        self.stop()
        self.running = self.start(home)
        return self.running

    def stop(self) -> None:
        running, self.running = self.running, None
        if running is not None:
            running.__exit__()


class Edge(RuleBasedStateMachine):
    """One example without its rules: runs, keys and a worker of its own at the shared Master."""

    masters: Masters
    numbers = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self.name = f"example-{next(self.numbers)}"
        self.master = self.masters.get()
        self.line = self.master.connection()
        self.worker = Worker(self.master.port, self.name, SLOTS).__enter__()
        self.model = Runs(self.name, self.name)
        self.store = Store()
        self.labels: list[str] = []
        self.kept: list[Dict] = []
        self.refused_keys: list[str] = []
        self.shown: dict[str, str] = {}
        self.restarts_left = 0
        self.marks = itertools.count(1)
        self.fresh = (f"{self.name}/key-{number}" for number in itertools.count(1))

    # What must hold after every step

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.the_worker_has_heard_all_and_no_more()  # first: from then on all that was reported is durable
        self.runs_and_jobs_are_as_the_model_says()

    def the_worker_has_heard_all_and_no_more(self) -> None:
        self.hear_all()
        for grant in self.worker.heard(Grant):
            self.model.granted(grant)
        assert not self.model.awaited, "a grant is missing"
        assert sorted(stop.fence for stop in self.worker.heard(Stop)) == sorted(self.model.stops)
        self.model.stops.clear()

    def runs_and_jobs_are_as_the_model_says(self) -> None:
        page = self.request("GET", f"/runs?limit=1000&agent_run_id={self.name}").json
        seen = {run["id"]: run for run in page["runs"]}
        assert seen.keys() == self.model.runs.keys()
        for run_id, run in seen.items():
            differ(run, self.model.view(run_id))
            if self.shown.get(run_id) != repr(self.model.runs[run_id]):
                self.see_jobs(run_id)

    def teardown(self) -> None:
        error = sys.exc_info()[0]  # of the step that failed, if one did: then there is nothing to compare
        try:
            if error is None:
                self.wind_up()
        finally:
            self.worker.__exit__()
            self.line.close()
            if error is not None and issubclass(error, (OSError, ConnectionClosed)):
                self.masters.stop()

    def wind_up(self) -> None:
        """Cancel what lives, end what runs: then every run has ended, and nothing that was told before has changed."""
        for run_id, run in self.model.runs.items():
            for job in run["jobs"].values():
                if job["state"] not in FINAL:
                    explained = self.request("GET", f"/runs/{run_id}/jobs/{job['id']}/explain").json
                    assert (explained["state"], bool(explained["reason"])) == (job["state"], True)
        for run_id in self.labels:
            if self.model.runs[run_id]["state"] not in FINAL:
                self.model.cancel(run_id)
                self.change(f"/runs/{run_id}/cancel")
        for fence in list(self.model.attempts):
            self.worker.say(Ended(fence, 143))
            self.model.end(fence, 143)
        assert all(run["state"] in FINAL for run in self.model.runs.values())
        self.shown.clear()
        self.all_is_as_the_model_says()
        self.read_back()
        for run_id, run in self.model.runs.items():
            assert self.request("GET", f"/runs/{run_id}/wait?timeout_s=0").json["done"]
            for job_id in run["jobs"]:
                tried = self.request("GET", f"/runs/{run_id}/jobs/{job_id}/attempts").json["attempts"]
                assert [each["attempt"] for each in tried] == self.model.tried.get((run_id, job_id), [])

    # How it is done

    def see_jobs(self, run_id: str) -> None:
        run = self.model.runs[run_id]
        jobs = self.request("GET", f"/runs/{run_id}/jobs").json["jobs"]
        assert [job["id"] for job in jobs] == list(run["jobs"])
        for job in jobs:
            differ(job, run["jobs"][job["id"]])
        self.shown[run_id] = repr(run)

    def request(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = self.master.request(method, path, body, kept=self.line, **more)
        assert answer.status < 500, (method, path, answer.body)
        return answer

    def post(self, path: str, body: Any = None, sender: int | None = None, key: str = "") -> Answer:
        token = TOKEN if sender is None else self.model.attempts[sender]["token"]
        return self.request("POST", path, body, headers={"Idempotency-Key": key} if key else {}, token=token)

    def change(
        self,
        path: str,
        body: Any = None,
        keyed: str = "",
        refusal: Refusal = None,
        sender: int | None = None,
        status: int = 200,
    ) -> Any:
        """Send a command that must be refused as `refusal` says or done; a refused one does not use its key up."""
        key = ""
        if keyed:
            key = self.refused_keys.pop() if keyed == "refused" and self.refused_keys else next(self.fresh)
        answer = self.post(path, body, sender, key)
        if refusal is not None:
            judge(answer, refusal)
            self.refused_keys += [key] * bool(key)
            return None
        assert answer.status == status, (answer.status, answer.body)
        if key:
            self.kept.append({"path": path, "body": body, "key": key, "answer": answer.json})
        return answer.json

    def store_change(self, word: str, name: str, more: Dict, key: str, sender: int | None) -> None:
        refusal = self.store.refuse(word, self.key(name))
        answer = self.change(f"/store/{word}", {"key": self.key(name), **coded(more)}, key, refusal, sender)
        if refusal is None:
            assert answer == told(word, self.store.do(word, self.key(name), **more))
        self.read_back(name)

    def read_back(self, *names: str) -> None:
        """Compare some keys, or all that there are."""
        if not names:
            there = self.change("/store/list", {"prefix": self.key("")})["keys"]
            assert set(there) == set(self.store.values)
        for key in [self.key(name) for name in names] or list(self.store.values):
            for word in ("get", "smembers"):
                answer = self.change(f"/store/{word}", {"key": key}, refusal=self.store.refuse(word, key))
                assert answer is None or answer == told(word, self.store.do(word, key))

    def hear_all(self) -> None:
        """Hear what was said until now: an end that nobody asked for is acknowledged in its turn."""
        mark = next(self.marks)
        self.worker.say(Ended(mark, 0))
        while not any(mark in ack.ended for ack in self.worker.heard(Ack)):
            self.worker.hear()

    def come_back(self, lost: list[int]) -> None:
        """The Master has closed the link: connect again."""
        hear_the_end(self.worker)
        self.line.close()
        self.line = self.master.connection()
        self.shown.clear()
        self.read_back()
        self.connect(lost, stale=False)

    def connect(self, lost: list[int], stale: bool) -> None:
        forgotten = {choose(which, list(self.model.attempts)) for which in lost if self.model.attempts}
        held = [
            Held(fence, attempt["started"]) for fence, attempt in self.model.attempts.items() if fence not in forgotten
        ]
        unwanted = [self.model.over[-1]["fence"]] if stale and self.model.over else []
        self.worker = Worker(
            self.master.port, self.name, SLOTS, attempts=(*held, *[Held(fence, True) for fence in unwanted])
        ).__enter__()
        assert [welcome.stop for welcome in self.worker.heard(Welcome)] == [tuple(unwanted)]
        self.model.stops += [each.fence for each in held if self.model.of(each.fence)[1]["cancelling"]]
        for fence in sorted(forgotten):
            self.model.lose(fence)

    def speaker(self, pick: int) -> int | None:
        """Return who speaks: a person half of the time, else a job that has an attempt."""
        return choose(pick // 2, list(self.model.attempts) or [None]) if pick % 2 else None

    def place(self, sender: int) -> tuple[str, str]:
        return self.model.attempts[sender]["run"], self.model.attempts[sender]["job"]

    def waiting(self) -> list[int]:
        return [fence for fence, attempt in self.model.attempts.items() if not attempt["started"]]

    def jobs(self, drawn: Sequence[Spec], there: Sequence[str] = ()) -> list[Spec]:
        """Return drawn jobs as JSON. A parent that is a number is one of those there, or of those before it."""
        where = {True: [self.name], False: ["NOWHERE"]}
        sent: list[Spec] = []
        for spec in drawn:
            known = [*there, *[each["job_id"] for each in sent if each["job_id"] not in there]] or [spec["job_id"]]
            parents = [choose(each, known) if isinstance(each, int) else each for each in spec["parents"]]
            rest = {field: spec[field] for field in ("job_id", "retries", "on_lost")}
            more = {"filename": "job.py", "requirement": where[spec["here"]], "retry_backoff_s": 0}
            sent.append({**rest, **more, "parents": list(dict.fromkeys(parents))})
        return sent

    def key(self, name: str) -> str:
        return f"{self.name}/{name}"

    def routes(self) -> list[tuple[str, str, Any]]:
        """Return requests that change nothing when they are refused, as they must be."""
        run_id = self.labels[0]
        return [
            ("GET", f"/runs/{run_id}", None),
            ("GET", f"/runs/{run_id}/jobs", None),
            ("GET", f"/jobs/lookup?id={quote(run_id)}", None),
            ("GET", "/stats", None),
            ("POST", "/store/get", {"key": self.key("a")}),
            ("POST", "/store/put", {"key": self.key("forbidden"), "value": "x"}),
            ("POST", "/runs", {"name": "forbidden", "agent_run_id": self.name, "jobs": []}),
            ("POST", f"/runs/{run_id}/cancel", None),
        ]


def choose(pick: int, options: Sequence[T]) -> T:
    return options[pick % len(options)]


def hear_the_end(worker: Worker) -> None:
    """Hear that the Master has closed a link."""
    try:
        while True:
            worker.hear()
    except ConnectionClosed:
        worker.__exit__()


def judge(answer: Answer, refusal: tuple[int, str]) -> None:
    assert (answer.status, answer.code) == refusal, answer.body


def differ(seen: Dict, expected: Dict) -> None:
    """Fail when `seen` differs in a field that the model knows."""
    assert {field: seen[field] for field in expected} == expected
