"""Judges what clients and watchers were told, against what the database holds.

An answer rests on committed rows: what was accepted is there, then and at the end (1), and what was refused because of
a state was in that state. Memory is ahead of the rows until the next commit and an answer waits for that, so it is
judged when it is given. A Master that was deposed may be behind: its refusals promise nothing.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.cells import Cells
from tests.simulation.watchers import Watchers
from tests.simulation.world import Broken
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, JobState, RunState

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master

EXTENDED = b"extended"


class Callers:
    """The judge of the answers.

    `keys`: the run of each key, as the rows say. `accepted`: the jobs that each run was told to have. `cancelled`:
    runs and their generation, told to be. `final_since`: when each run that is over came to be, and
    `opened_at` when each was shown or last opened again.
    """

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.world = ground.world
        self.tables = ground.mirror.rows
        self.cells = Cells(ground)
        self.watchers = Watchers(ground)
        self.epoch = 0
        self.keys: dict[str, bytes] = {}
        self.submitted: dict[str, str] = {}
        self.accepted: dict[str, dict[str, None]] = {}
        self.cancelled: set[tuple[str, int]] = set()
        self.children: dict[tuple[str, str, int, str], str] = {}
        self.final_since: dict[str, int] = {}
        self.opened_at: dict[str, int] = {}
        self.generations: dict[str, int] = {}

    def took_over(self, epoch: int) -> None:
        """An epoch begins."""
        self.epoch = epoch

    # Batches

    def remembered(self, key: str, answer: bytes) -> None:
        """The answer to a request is in the database."""
        if self.keys.setdefault(key, answer) != answer:
            raise Broken("i3", f"{key} is remembered as {answer!r} after {self.keys[key]!r}")

    def run_changed(self, run_id: str, row: dict[str, Any]) -> None:
        """The row of a run was written."""
        generation = row["generation"]
        if row["state"] == RunState.STAGED:
            return
        if self.generations.get(run_id) != generation:
            # It is shown or opened again; one batch may do that and see it end.
            self.generations[run_id] = generation
            self.final_since.pop(run_id, None)
            self.opened_at[run_id] = self.world.now
        if row["state"] not in FINAL_RUN_STATES:
            return
        self.final_since.setdefault(run_id, self.world.now)
        if row["state"] == RunState.COMPLETED and (run_id, row["generation"]) in self.cancelled:
            raise Broken("i5", f"run {run_id} was told to be cancelled and is COMPLETED")

    # Answers

    def answers(self, master: "Master", request: Any, code: str, answer: Any, asked_ms: int) -> None:
        """A Master answers; the answer may be lost."""
        leads = master.machine.epoch == self.epoch
        if code == "ok":
            self._says_yes(request, answer, leads, asked_ms)
        elif code == "conflict" and leads:
            self._refuses(request, answer, asked_ms)

    def _says_yes(self, request: Any, answer: Any, leads: bool, asked_ms: int) -> None:
        match request.name:
            case "submit":
                run_id = answer.decode()
                if self.submitted.setdefault(request.key, run_id) != run_id or self.keys.get(request.key) != answer:
                    raise Broken("i3", f"{request.key} is {run_id}, not {self.submitted[request.key]}")
                self._accepts(run_id, request)
                if request.parent:
                    self._is_child(run_id, request)
            case "extend":
                if self.keys.get(request.key) != EXTENDED:
                    raise Broken("i3", f"{request.key} is acknowledged and not remembered")
                self._accepts(request.run_id, request)
            case "retry":
                row = self.tables["runs"][request.run_id,]
                if row["generation"] < answer["generation"]:
                    raise Broken("i1", f"generation {answer['generation']} of {request.run_id} is told and not there")
            case "cancel" if leads:
                self._cancels(request, answer["cancelled"], asked_ms)
            case "store":
                self.cells.answered(request.operation, answer)
            case "read":
                self.cells.read(request.cell, answer)

    def _is_child(self, run_id: str, request: Any) -> None:
        """A job is told its child run: the same in each attempt of its generation, for what it asks in one place."""
        parent_id, job_id, fence = request.parent
        generation = self.tables["attempts"][fence,]["generation"]
        asked = (parent_id, job_id, generation, request.key.rpartition(".")[2])
        if self.children.setdefault(asked, run_id) != run_id:
            raise Broken("i3", f"{asked} has {run_id} below it, and {self.children[asked]}")

    def _accepts(self, run_id: str, request: Any) -> None:
        accepted = self.accepted.setdefault(run_id, {})
        for job in request.jobs:
            accepted[job.job_id] = None
            if (run_id, job.job_id) not in self.tables["jobs"]:
                raise Broken("i1", f"{job.job_id} of {run_id} was accepted and is not there")

    def _cancels(self, request: Any, cancelled: bool, asked_ms: int) -> None:
        """It is told to be cancelled, or that there is nothing to cancel any more."""
        row = self.run_row(request.run_id)
        if cancelled:
            if row is None or not row["cancelled_on_request"]:
                raise Broken("i5", f"a cancel of {request.run_id} is acknowledged and not in the database")
            self.cancelled.add((request.run_id, row["generation"]))
        elif not self._was_over(request.run_id, asked_ms):
            job = self.tables["jobs"].get((request.run_id, request.job_id))
            if not request.job_id or (job is not None and job["state"] not in FINAL_JOB_STATES):
                raise Broken("i1", f"{request.run_id}/{request.job_id} lives and is told to be over")

    def _refuses(self, request: Any, why: str, asked_ms: int) -> None:
        run_id = request.parent[0] if request.name == "submit" else request.run_id
        row = self.run_row(run_id)
        state = row["state"] if row is not None else None
        right = True
        if "has not ended" in why:
            right = self.final_since.get(run_id, self.world.now) >= asked_ms
        elif "has ended" in why:
            right = self._was_over(run_id, asked_ms)
        elif "every job has completed" in why:
            jobs = self.ground.mirror.jobs_of[run_id].values()
            right = self.opened_at.get(run_id, -1) >= asked_ms or all(
                job["state"] == JobState.COMPLETED for job in jobs
            )
        elif "is taken" in why:
            right = any((run_id, job.job_id) in self.tables["jobs"] for job in request.jobs)
        elif "is being cancelled" in why and request.name == "extend":
            right = row is not None and (row["cancel_requested"] or self._was_over(run_id, asked_ms))
        if not right:
            raise Broken("i1", f"{request.name} is refused, the run is {state}: {why}")

    def _was_over(self, run_id: str, asked_ms: int) -> bool:
        """Say whether there was, now or since a request came, no such run that lives."""
        row = self.run_row(run_id)
        return row is None or row["state"] in FINAL_RUN_STATES or self.opened_at.get(run_id, -1) >= asked_ms

    def run_row(self, run_id: str) -> dict[str, Any] | None:
        """Return the row of a run that can be seen."""
        row = self.tables["runs"].get((run_id,))
        return None if row is None or row["state"] == RunState.STAGED else row

    def finish(self) -> None:
        """Judge the whole: all that was accepted is there, and each run is that of one key."""
        self.cells.finish()
        for run_id, job_ids in self.accepted.items():
            missing = [job_id for job_id in job_ids if (run_id, job_id) not in self.tables["jobs"]]
            if missing or self.run_row(run_id) is None:
                raise Broken("i1", f"{run_id} was accepted and lacks {missing}")
        owners: dict[str, str] = {}
        for (key,), row in self.tables["idempotency"].items():
            if row["answer"] != EXTENDED and owners.setdefault(row["answer"].decode(), key) != key:
                raise Broken("i3", f"{key} and {owners[row['answer'].decode()]} have one run")
        for (run_id,), row in self.tables["runs"].items():
            if row["state"] != RunState.STAGED and run_id not in owners:
                raise Broken("i3", f"run {run_id} is there, and nobody's key tells of it")
