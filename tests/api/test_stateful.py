"""The edge of the API against a model of plain dicts: any order of requests, reports, reloads and restarts.

A real Master answers over HTTP; a worker double takes its grants and says what the drawn step tells it to. After
each step everything that is shown must be what the model says: the runs there are and their counts, the jobs of
those that changed, the grants and stops that the worker heard, the value of a key that was written. Nothing waits
for time: a report that nobody asked for is acknowledged when all before it is durable, so its answer closes the
step. There are no routes for tokens yet, so the tokens here are those of jobs, wrong ones and none.

`stateful_model` and `stateful_store` hold what is believed, `stateful_edge` how it is asked and compared, this file
the rules. `./dev test tests/api/test_stateful.py --hypothesis-profile=long` draws 5,000 examples. A failure prints
its steps.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.api.master import TOKEN
from tests.api.stateful_edge import Edge, Masters, choose, hear_the_end, judge
from tests.api.stateful_model import Dict, Spec
from tests.api.stateful_store import coded, keys, swaps, told, writes
from titan.master.tickets import Ticket
from titan.model.wire import Ended, Returned, Started

EXAMPLES = max(200, settings.default.max_examples)
STEPS = 25
SHRINKING_S = 600
KEY_REUSED = (409, "key_reused")
NOBODY = (401, "unauthenticated")
pytestmark = pytest.mark.timeout(SHRINKING_S + EXAMPLES)

picks = st.integers(0, 11)
keyed = st.sampled_from(["", "", "fresh", "refused"])
parents_of = {name: st.lists(st.sampled_from("abcd"[:place]), max_size=2, unique=True) if place else st.just([])
              for place, name in enumerate("abcd")}  # fmt: skip


def specs(job_id: Any, parents: Any) -> Any:
    return st.fixed_dictionaries(
        {
            "job_id": job_id,
            "parents": parents,
            "here": st.sampled_from([True, True, True, False]),
            "retries": st.sampled_from([0, 0, 1]),
            "on_lost": st.sampled_from(["retry", "retry", "fail"]),
        }
    )


dags = st.integers(1, 4).flatmap(lambda size: st.tuples(*[specs(st.just(x), parents_of[x]) for x in "abcd"[:size]]))
tangles = st.lists(
    specs(st.sampled_from("abcde"), st.lists(st.sampled_from([*"abcdef", "ghost"]), max_size=3, unique=True)),
    max_size=4,
)
circles = st.integers(1, 3).flatmap(
    lambda size: st.tuples(*[specs(st.just("xyz"[at]), st.just(["xyz"[(at + 1) % size]])) for at in range(size)])
)
broken = tangles | circles
additions = st.lists(
    specs(st.sampled_from("efgh"), st.lists(picks, max_size=2)),
    min_size=1,
    max_size=3,
    unique_by=lambda spec: spec["job_id"],
)


@pytest.fixture(scope="module", autouse=True)
def _masters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    Api.masters = Masters(tmp_path_factory.mktemp("stateful"))
    yield
    Api.masters.stop()


class Api(Edge):
    """The rules."""

    # Submitting, extending, cancelling, trying again

    @initialize(jobs=dags, restarts=st.sampled_from([0, 0, 0, 1]))
    def begin(self, jobs: Sequence[Spec], restarts: int) -> None:
        self.restarts_left = restarts  # a restart takes as long as the rest of an example
        self.submit(jobs, "fresh", 0)

    @rule(jobs=st.one_of(dags, dags, broken), key=keyed, speaker=picks)
    def submit(self, jobs: Sequence[Spec], key: str, speaker: int) -> None:
        self.submit_as(self.speaker(speaker), jobs, key)

    def submit_as(self, sender: int | None, jobs: Sequence[Spec], key: str) -> None:
        sent = self.jobs(jobs)
        body = {"name": f"run {len(self.labels)}", "jobs": sent}
        if sender is None:
            body["agent_run_id"] = self.name
        refusal = self.model.refuse_submit(sent, sender)
        answer = self.change("/runs", body, key, refusal, sender, status=201)
        if refusal is None:
            run_id = answer["run"]["id"]
            assert run_id not in self.model.runs
            self.labels.append(run_id)
            self.model.submit(run_id, body["name"], sent, sender)

    @rule(run=picks, jobs=st.one_of(additions, additions, broken), key=keyed, speaker=picks)
    def extend(self, run: int, jobs: Sequence[Spec], key: str, speaker: int) -> None:
        run_id, sender = choose(run, self.labels), self.speaker(speaker)
        sent = self.jobs(jobs, list(self.model.runs[run_id]["jobs"]))
        refusal = self.model.refuse_extend(run_id, sent, sender)
        self.change(f"/runs/{run_id}/extend", {"jobs": sent}, key, refusal, sender, status=201)
        if refusal is None:
            self.model.extend(run_id, sent)

    @rule(run=picks, speaker=picks)
    def cancel_run(self, run: int, speaker: int) -> None:
        run_id, sender = choose(run, self.labels), self.speaker(speaker)
        refusal = self.model.refuse_cancel(run_id, sender)
        self.change(f"/runs/{run_id}/cancel", None, "", refusal, sender)
        if refusal is None:
            self.model.cancel(run_id)

    @rule(run=picks, job=picks, speaker=picks)
    def cancel_job(self, run: int, job: int, speaker: int) -> None:
        run_id, sender = choose(run, self.labels), self.speaker(speaker)
        job_id = choose(job, list(self.model.runs[run_id]["jobs"]))
        refusal = self.model.refuse_cancel(run_id, sender)
        self.change(f"/runs/{run_id}/jobs/{job_id}/cancel", None, "", refusal, sender)
        if refusal is None:
            self.model.cancel_job(run_id, job_id)

    @rule(run=picks, names=st.just([]) | st.lists(st.sampled_from("abce"), max_size=2, unique=True), key=keyed)
    def retry(self, run: int, names: list[str], key: str) -> None:
        run_id = choose(run, self.labels)
        refusal = self.model.refuse_retry(run_id, names)
        self.change(f"/runs/{run_id}/retry", {"job_ids": names}, key, refusal)
        if refusal is None:
            self.model.retry(run_id, names)

    # Idempotency keys

    @precondition(lambda self: self.kept)
    @rule(which=picks, speaker=picks)
    def send_again(self, which: int, speaker: int) -> None:
        """The same key with the same body: done once, answered again."""
        first, senders = choose(which, self.kept), [None]
        if first["path"] == "/runs":
            parent = self.model.runs[first["answer"]["run"]["id"]]["parent"]
            senders += [fence for fence in self.model.attempts if self.place(fence) == parent]
        self.send_again_as(choose(speaker, senders), first)

    def send_again_as(self, sender: int | None, first: Dict) -> None:
        """Send a request again, as a person or as an attempt of the job that sent it."""
        answer = self.post(first["path"], first["body"], sender, first["key"])
        assert answer.status == 200, answer.body
        if first["path"].startswith("/store/"):
            assert answer.json == first["answer"]
        else:
            assert answer.json["run"]["id"] == first["answer"]["run"]["id"]
        if first["path"] == "/runs":
            self.model.submit_again(first["answer"]["run"]["id"], sender)

    @precondition(lambda self: self.model.attempts)
    @rule(which=picks, jobs=dags, cancelled=st.booleans())
    def a_later_attempt_submits_again(self, which: int, jobs: Sequence[Spec], cancelled: bool) -> None:
        """It gets the run of the attempt that was lost, opened again if that was cancelled meanwhile."""
        fence = choose(which, list(self.model.attempts))
        place, known = self.place(fence), len(self.labels)
        self.submit_as(fence, jobs, "fresh")
        if len(self.labels) == known:
            return
        child, first = self.labels[-1], self.kept[-1]
        self.all_is_as_the_model_says()
        if cancelled:
            self.change(f"/runs/{child}/cancel")
            self.model.cancel(child)
        self.all_is_as_the_model_says()
        self.connect_again([list(self.model.attempts).index(fence)], stale=False)
        self.all_is_as_the_model_says()
        for later in [fence for fence in self.model.attempts if self.place(fence) == place]:
            self.send_again_as(later, first)

    @precondition(lambda self: self.kept)
    @rule(which=picks, what=st.sampled_from(["submit", "extend", "retry", "store"]))
    def use_a_key_for_something_else(self, which: int, what: str) -> None:
        first, run_id = choose(which, self.kept), self.labels[0]
        other = self.jobs([{"job_id": "other", "parents": [], "here": True, "retries": 0, "on_lost": "retry"}])
        path, body = {
            "submit": ("/runs", {"name": "other", "agent_run_id": self.name, "jobs": other}),
            "extend": (f"/runs/{run_id}/extend", {"jobs": other}),
            "retry": (f"/runs/{run_id}/retry", {"job_ids": ["z"]}),
            "store": ("/store/put", {"key": f"{self.name}/other", "value": "other"}),
        }[what]
        judge(self.post(path, body, key=first["key"]), KEY_REUSED)

    # The worker

    @precondition(lambda self: self.waiting())
    @rule(which=picks)
    def start(self, which: int) -> None:
        fence = choose(which, self.waiting())
        self.worker.say(Started(fence))
        self.model.start(fence)

    @precondition(lambda self: self.model.attempts)
    @rule(which=picks, exit_code=st.sampled_from([0, 0, 0, 1, 137]))
    def end(self, which: int, exit_code: int) -> None:
        fence = choose(which, list(self.model.attempts))
        self.worker.say(Ended(fence, exit_code))
        self.model.end(fence, exit_code)

    @precondition(lambda self: self.model.attempts)
    @rule(exit_code=st.sampled_from([0, 1]))
    def end_all(self, exit_code: int) -> None:
        for fence in list(self.model.attempts):
            self.worker.say(Ended(fence, exit_code))
            self.model.end(fence, exit_code)

    @precondition(lambda self: self.waiting())
    @rule(which=picks)
    def give_back(self, which: int) -> None:
        fence = choose(which, self.waiting())
        self.worker.say(Returned(fence))
        self.model.give_back(fence)

    @precondition(lambda self: self.model.over)
    @rule(which=picks)
    def report_what_is_over(self, which: int) -> None:
        fence = choose(which, self.model.over)["fence"]
        self.worker.say(Started(fence), Returned(fence), Ended(fence, 1))

    @rule(lost=st.lists(picks, max_size=2), stale=st.booleans())
    def connect_again(self, lost: list[int], stale: bool) -> None:
        """The worker comes back without some of its attempts, and with one that nobody wants any more."""
        former = self.worker
        self.connect(lost, stale)
        hear_the_end(former)

    # The Master

    @rule(lost=st.lists(picks, max_size=1))
    def reload(self, lost: list[int]) -> None:
        """The core fails on an event: its memory is dropped and read anew from the database."""
        self.store_change("incr", "reloads", {"by": 1}, "", None)  # without a commit between them, loads are put off
        shell = self.master.engine._shell
        self.master.on_loop(lambda: shell.feed(object(), Ticket()))  # type: ignore[arg-type]
        self.come_back(lost)

    @precondition(lambda self: self.restarts_left)
    @rule(lost=st.lists(picks, max_size=1))
    def restart(self, lost: list[int]) -> None:
        self.restarts_left -= 1
        self.master = self.masters.restart()
        self.come_back(lost)

    # The store

    @rule(write=writes, key=keyed, speaker=picks)
    def write(self, write: tuple[str, str, Dict], key: str, speaker: int) -> None:
        self.store_change(*write, key, self.speaker(speaker))

    @rule(swap=swaps, key=keyed, speaker=picks)
    def swap(self, swap: tuple[str, str, Any], key: str, speaker: int) -> None:
        """`held`: what the key holds by the model is expected, otherwise something near it."""
        name, expect, value = swap
        held = self.store.values.get(self.key(name))
        if isinstance(held, set):
            held = "x"
        text = held.decode("latin-1") if isinstance(held, bytes) else held or ""
        expected = {"held": held, "text": text, "bytes": text.encode(), "none": None}[expect]
        self.store_change("cas", name, {"expect": expected, "value": value}, key, self.speaker(speaker))

    @rule(several=st.lists(writes, min_size=1, max_size=3), key=keyed)
    def write_many(self, several: list[tuple[str, str, Dict]], key: str) -> None:
        """All or none."""
        before, refusal, results = dict(self.store.values), None, []
        for word, name, more in several:
            refusal = refusal or self.store.refuse(word, self.key(name))
            if refusal is None:
                results.append(told(word, self.store.do(word, self.key(name), **more)))
        operations = [{"op": word, "key": self.key(name), **coded(more)} for word, name, more in several]
        answer = self.change("/store/many", {"operations": operations}, key, refusal)
        if refusal is None:
            assert answer == {"results": results}
        else:
            self.store.values = before
        self.read_back()

    @rule(prefix=st.sampled_from(["", "a", "a/"]), limit=st.integers(1, 3), after=st.none() | keys)
    def list_keys(self, prefix: str, limit: int, after: str | None) -> None:
        body = {"prefix": self.key(prefix), "limit": limit, "after": after and self.key(after)}
        names = sorted((name for name in self.store.values if name.startswith(body["prefix"])), key=str.encode)
        names = [name for name in names if after is None or name.encode() > self.key(after).encode()]
        following = names[limit - 1] if len(names) > limit else None
        assert self.change("/store/list", body) == {"keys": names[:limit], "next": following}

    # Tokens

    @rule(which=picks, route=picks, wrong=st.sampled_from(["over", "over", "none", "other", "changed", "of another"]))
    def speak_with_a_token_that_is_not_good(self, which: int, route: int, wrong: str) -> None:
        living = [attempt["token"] for attempt in self.model.attempts.values()]
        token: str | None = choose(which, living or [TOKEN])
        assert token is not None
        if wrong == "over" and self.model.over:
            token = choose(which, self.model.over)["token"]
        elif wrong == "none":
            token = None
        elif wrong == "of another" and living:
            head, run_id, rest = token.split(".", 2)
            token = f"{head}.{'f' * len(run_id)}.{rest}"
        elif wrong == "changed":
            token = token[:-1] + ("1" if token[-1] == "0" else "0")
        else:
            token = "x" * len(TOKEN)
        judge(self.request(*choose(route, self.routes()), token=token), NOBODY)

    @precondition(lambda self: self.model.attempts)
    @rule(which=picks, run=picks)
    def speak_of_what_no_job_may(self, which: int, run: int) -> None:
        token = choose(which, list(self.model.attempts.values()))["token"]
        run_id = choose(run, self.labels)
        judge(self.request("POST", f"/runs/{run_id}/retry", {"job_ids": []}, token=token), (403, "denied"))
        judge(self.request("POST", f"/workers/{self.name}/drain", None, token=token), (403, "denied"))
        assert self.request("GET", f"/runs/{run_id}", token=token).status == 200


TestApi = Api.TestCase
TestApi.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
