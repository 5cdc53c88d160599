"""Judges what clients and watchers were told, against what the database holds."""

from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken
from titan.core.commit import Batch
from titan.core.events import News

if TYPE_CHECKING:
    from tests.simulation.ground import Ground
    from tests.simulation.master import Master


class Callers:
    """The judge of the answers."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.tables = ground.mirror.rows
        self.submitted: dict[str, str] = {}

    def committed(self, master: "Master", batch: Batch, results: list[Any]) -> None:
        """A batch is in the database."""

    def told(self, master: "Master", number: int, news: list[News]) -> None:
        """Watchers are told."""

    def answers(self, master: "Master", request: Any, code: str, answer: Any) -> None:
        """A Master answers; the answer may be lost."""
        if request.name == "submit" and code == "ok":
            run_id = answer.decode()
            if self.submitted.setdefault(request.key, run_id) != run_id:
                raise Broken("i3", f"{request.key} is {run_id} and {self.submitted[request.key]}")
            for job in request.jobs:
                if (run_id, job.job_id) not in self.tables["jobs"]:
                    raise Broken("i1", f"{run_id} was accepted and has no {job.job_id}")

    def answered(self, request: Any, code: str, answer: Any) -> None:
        """A client has its answer."""

    def counts(self, cell: str, key: str) -> None:
        """A job counts itself in `cell`."""

    def finish(self) -> None:
        """Judge the whole."""
