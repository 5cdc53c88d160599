"""Judges what is in the database: every move of every job, attempt and run, and what may follow from it."""

from typing import TYPE_CHECKING, Any

from tests.simulation.hosts import Hosts
from tests.simulation.world import Broken
from titan.core.changes import Insert
from titan.core.commit import Batch, Commit, Refuse, Release
from titan.core.events import Decision, Event, Send
from titan.model.states import FINAL_JOB_STATES, FINAL_RUN_STATES, LIVING_ATTEMPT_STATES, JobState
from titan.model.wire import Ack, Grant

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master

JobKey = tuple[str, str]


class Rows:
    """The judge of the rows."""

    def __init__(self, ground: "Ground", hosts: Hosts) -> None:
        self.ground = ground
        self.world = ground.world
        self.hosts = hosts
        self.tables = ground.mirror.rows
        self.seen: dict[JobKey, tuple[JobState, int, int]] = {}

    def took_over(self, master: "Master", epoch: int) -> None:
        """A Master has begun an epoch."""

    def loaded(self, master: "Master", epoch: int, mono_ms: int) -> None:
        """It leads."""

    def decided(self, master: "Master", event: Event, decision: Decision) -> None:
        """Its scheduler took an event."""

    def renewed(self, master: "Master", name: str, incarnation: str, heard: bool) -> None:
        """A renewal is answered."""

    def failed(self, master: "Master", error: Exception) -> None:
        """A batch was not taken."""
        self.world.hits[f"commit {type(error).__name__}"] += 1

    def refused(self, master: "Master", machine: Commit, order: Refuse) -> None:
        """Callers are told that it was not kept."""

    def released(self, master: "Master", machine: Commit, order: Release) -> None:
        """What follows is told as durable."""

    def committed(self, master: "Master", batch: Batch) -> None:
        """A batch is in the database."""
        for change in batch.changes:
            if change.table == "jobs" and "state" in change.values:
                values = change.values
                self.job_moved((values["run_id"], values["job_id"]) if isinstance(change, Insert) else change.key)

    def job_moved(self, key: Any) -> None:
        """The row of a job was written."""
        row = self.tables["jobs"][key]
        state, fence, generation = row["state"], row["fence"], row["generation"]
        before = self.seen.get(key)
        self.seen[key] = (state, fence, generation)
        if self.world.tell is not None:
            text = f"{key[0][:6]}/{key[1]} {state} {row['reason']} {fence} {row['worker']}"
            self.world.tell(self.world.now, "database", text)
        if before is not None:
            if before[0] in FINAL_JOB_STATES and generation <= before[2]:
                raise Broken("i11", f"{key} was {before[0]} and is {state}")
            if fence < before[1]:
                raise Broken("i8", f"{key}: fence {fence} after {before[1]}")
        if state == JobState.COMPLETED and self.hosts.ends.get(fence, (1, ""))[0] != 0:
            raise Broken("i11", f"{key} is COMPLETED, its process {fence}: {self.hosts.ends.get(fence)}")

    def sends(self, master: "Master", send: Send) -> None:
        """A message to a worker is let go."""
        message = send.message
        attempts = self.tables["attempts"]
        if isinstance(message, Grant) and (message.fence,) not in attempts:
            raise Broken("i8", f"grant {message.fence} before its commit")
        if isinstance(message, Ack):
            for fence in message.ended:
                row = attempts.get((fence,))
                if row is not None and row["state"] in LIVING_ATTEMPT_STATES and not master.poisoned:
                    raise Broken("i29", f"the end of {fence} is acknowledged and its row is {row['state']}")

    def left(self) -> str:
        """Return what is left to do."""
        for key, row in self.tables["runs"].items():
            if row["state"] not in FINAL_RUN_STATES:
                return f"run {key[0][:8]} is {row['state']}"
        return ""

    def finish(self) -> None:
        """Judge the whole."""
