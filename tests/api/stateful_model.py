"""What the stateful suite believes of runs, jobs and attempts, as plain dicts.

A dict of a job or a run holds the fields of its JSON, so that the two are compared as they are. `refuse_*` say
whether a command is refused, as (status, code), and change nothing; the other functions change the dicts as the
contract says. What the worker must hear of it is in `awaited` (grants) and `stops`.
"""

from collections.abc import Collection, Iterator
from typing import Any

from titan.model.wire import Grant

Dict = dict[str, Any]
Spec = dict[str, Any]
Refusal = tuple[int, str] | None
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "DEAD")
COUNTED = ("completed", "failed", "cancelled", "dead")
DEATHS_MAX = 3
INVALID = (422, "invalid")
CONFLICT = (409, "conflict")
DENIED = (403, "denied")


class Runs:
    """The runs of one example. A sender is the fence of the job that speaks, None for a person."""

    def __init__(self, agent_run_id: str, capability: str) -> None:
        self.agent_run_id = agent_run_id
        self.capability = capability
        self.runs: dict[str, Dict] = {}
        self.attempts: dict[int, Dict] = {}
        self.over: list[Dict] = []
        self.tried: dict[tuple[str, str], list[int]] = {}
        self.awaited: dict[tuple[str, str], int] = {}
        self.stops: list[int] = []
        self.fence_max = 0

    # Commands

    def refuse_submit(self, specs: list[Spec], sender: int | None) -> Refusal:
        """All or nothing; and a job that is being cancelled starts nothing new."""
        if is_tangled(specs, ()):
            return INVALID
        return CONFLICT if self._is_stopping(self._place(sender)) else None

    def submit(self, run_id: str, name: str, specs: list[Spec], sender: int | None) -> None:
        run = {"id": run_id, "name": name, "state": "QUEUED", "generation": 1, "parent": self._place(sender)}
        self.runs[run_id] = {**run, "cancel": False, "asked": False, "ended_under": 0, "jobs": {}}
        self._add(self.runs[run_id], specs)

    def submit_again(self, run_id: str, sender: int | None) -> None:
        """A later attempt of the submitting job gets the same run, opened again if it ended badly before."""
        run = self.runs[run_id]
        before = sender is not None and run["ended_under"] != sender
        if before and run["state"] in ("FAILED", "CANCELLED") and self.refuse_retry(run_id, []) is None:
            self.retry(run_id, [])

    def refuse_extend(self, run_id: str, specs: list[Spec], sender: int | None) -> Refusal:
        run = self.runs[run_id]
        if not self.may(sender, run_id):
            return DENIED
        if is_tangled(specs, run["jobs"]):
            return INVALID
        return CONFLICT if run["state"] in FINAL or run["cancel"] else None

    def extend(self, run_id: str, specs: list[Spec]) -> None:
        self._add(self.runs[run_id], specs)

    def refuse_cancel(self, run_id: str, sender: int | None) -> Refusal:
        return None if self.may(sender, run_id) else DENIED

    def cancel(self, run_id: str) -> None:
        """The run and all living ones below it. One that has ended stays as it is."""
        top = self.runs[run_id]
        if top["state"] in FINAL and not top["cancel"]:
            return
        for run in (top, *self._below(run_id)):
            if run["state"] not in FINAL and not run["cancel"]:
                run["cancel"] = run["asked"] = True
                for job in run["jobs"].values():
                    self._cancel(run, job)
        self._settle()

    def cancel_job(self, run_id: str, job_id: str) -> None:
        run = self.runs[run_id]
        job = run["jobs"][job_id]
        if job["state"] not in FINAL:
            run["asked"] = True
            self._cancel(run, job)
            self._settle()

    def refuse_retry(self, run_id: str, names: list[str]) -> Refusal:
        run = self.runs[run_id]
        if run["state"] not in FINAL or self._is_stopping(run["parent"]):
            return CONFLICT
        jobs = run["jobs"]
        if not names and all(job["state"] == "COMPLETED" for job in jobs.values()):
            return CONFLICT
        if any(name not in jobs for name in names):
            return (404, "not_found")
        again = self._again(run, names)
        kept = [parent for job_id in again for parent in jobs[job_id]["parents"] if parent not in again]
        return None if all(jobs[parent]["state"] == "COMPLETED" for parent in kept) else CONFLICT

    def retry(self, run_id: str, names: list[str]) -> None:
        """Open the next generation: what did not complete, or what is named, with all that follows."""
        run = self.runs[run_id]
        again = self._again(run, names)
        run.update(state="QUEUED", generation=run["generation"] + 1, cancel=False, asked=False, ended_under=0)
        for job_id in again:
            run["jobs"][job_id].update(
                state="BLOCKED", generation=run["generation"], failures=0, losses=0, exit_code=None
            )
        self._settle()

    # Reports of the worker

    def granted(self, grant: Grant) -> None:
        """A grant was heard: it must be one that is due, under a fence that was never there."""
        attempt = self.awaited.pop((grant.run_id, grant.job_id), None)
        assert attempt == grant.attempt, grant
        assert grant.generation == self.runs[grant.run_id]["generation"]
        assert grant.fence > self.fence_max, "fences rise"
        self.fence_max = grant.fence
        self.tried.setdefault((grant.run_id, grant.job_id), []).append(attempt)
        self.attempts[grant.fence] = {
            "run": grant.run_id, "job": grant.job_id, "token": grant.token, "started": False, "fence": grant.fence,
        }  # fmt: skip

    def start(self, fence: int) -> None:
        attempt = self.attempts[fence]
        attempt["started"] = True
        run, job = self.of(fence)
        job["state"] = "RUNNING"
        if run["state"] == "QUEUED":
            run["state"] = "RUNNING"

    def end(self, fence: int, exit_code: int) -> None:
        self.start(fence)
        run, job = self._close(fence)
        if job["cancelling"]:
            self._finish(job, "CANCELLED", exit_code)
        elif exit_code == 0:
            self._finish(job, "COMPLETED", 0)
        elif job["failures"] < job["retries"]:
            job.update(failures=job["failures"] + 1, exit_code=exit_code)
            self._ready(run, job)
        else:
            self._finish(job, "FAILED", exit_code)
        self._settle()

    def give_back(self, fence: int) -> None:
        """It had not started: that was no try, and the number of the attempt is given back too."""
        run, job = self._close(fence)
        self.tried[run["id"], job["id"]].pop()
        job["attempt"] -= 1
        if job["cancelling"]:
            self._finish(job, "CANCELLED")
        else:
            self._ready(run, job)
        self._settle()

    def lose(self, fence: int) -> None:
        """The worker said hello without it."""
        if not self.attempts[fence]["started"]:
            self.give_back(fence)
            return
        run, job = self._close(fence)
        if job["cancelling"]:
            self._finish(job, "CANCELLED")
        elif job["on_lost"] == "fail":
            self._finish(job, "FAILED")
        else:
            job["losses"] += 1
            if job["losses"] >= DEATHS_MAX:
                self._finish(job, "DEAD")
            else:
                self._ready(run, job)
        self._settle()

    # What is seen

    def of(self, fence: int) -> tuple[Dict, Dict]:
        """Return the run and the job of an attempt."""
        attempt = self.attempts[fence]
        run = self.runs[attempt["run"]]
        return run, run["jobs"][attempt["job"]]

    def view(self, run_id: str) -> Dict:
        """Return what the API must show of a run."""
        run = self.runs[run_id]
        states = [job["state"].lower() for job in run["jobs"].values()]
        top = run
        while top["parent"]:
            top = self.runs[top["parent"][0]]
        parent_run, parent_job = run["parent"] or (None, None)
        return {
            "id": run_id, "name": run["name"], "state": run["state"], "generation": run["generation"],
            "agent_run_id": self.agent_run_id, "root_run_id": top["id"], "parent_run_id": parent_run,
            "parent_job_id": parent_job, "cancelling": run["cancel"] and run["state"] not in FINAL,
            "jobs": {"total": len(states), **{state: states.count(state) for state in COUNTED}},
        }  # fmt: skip

    def may(self, sender: int | None, run_id: str) -> bool:
        """Say whether a sender may act on a run: a job on its own and those below."""
        own = self._place(sender)
        return own is None or run_id == own[0] or any(run["id"] == run_id for run in self._below(own[0]))

    def _place(self, sender: int | None) -> tuple[str, str] | None:
        return None if sender is None else (self.attempts[sender]["run"], self.attempts[sender]["job"])

    def _below(self, run_id: str) -> Iterator[Dict]:
        for run in list(self.runs.values()):
            if run["parent"] and run["parent"][0] == run_id:
                yield run
                yield from self._below(run["id"])

    def _is_stopping(self, place: tuple[str, str] | None) -> bool:
        if place is None:
            return False
        run = self.runs[place[0]]
        return run["state"] not in FINAL and (run["cancel"] or run["jobs"][place[1]]["cancelling"])

    # What follows

    def _add(self, run: Dict, specs: list[Spec]) -> None:
        for spec in specs:
            run["jobs"][spec["job_id"]] = {
                "id": spec["job_id"], "state": "BLOCKED", "generation": run["generation"], "attempt": 0,
                "failures": 0, "losses": 0, "exit_code": None, "cancelling": False, "parents": spec["parents"],
                "requirement": spec["requirement"], "retries": spec["retries"], "on_lost": spec["on_lost"],
            }  # fmt: skip
        self._settle()

    def _again(self, run: Dict, names: list[str]) -> set[str]:
        jobs = run["jobs"]
        again = set(names) or {job_id for job_id, job in jobs.items() if job["state"] != "COMPLETED"}
        while more := {job_id for job_id, job in jobs.items() if again.intersection(job["parents"])} - again:
            again |= more
        return again

    def _cancel(self, run: Dict, job: Dict) -> None:
        if job["state"] in ("ASSIGNED", "RUNNING"):
            if not job["cancelling"]:
                job["cancelling"] = True
                self.stops.append(self._fence(run["id"], job["id"]))
        elif job["state"] not in FINAL:
            self._finish(job, "CANCELLED")

    def _close(self, fence: int) -> tuple[Dict, Dict]:
        found = self.of(fence)
        self.over.append(self.attempts.pop(fence))
        return found

    def _ready(self, run: Dict, job: Dict) -> None:
        """Slots are many, so what our worker offers is granted in the same moment."""
        job["state"] = "QUEUED"
        if job["requirement"] == [self.capability]:
            job["state"] = "ASSIGNED"
            job["attempt"] += 1
            self.awaited[run["id"], job["id"]] = job["attempt"]

    def _finish(self, job: Dict, state: str, exit_code: int | None = None) -> None:
        job.update(state=state, exit_code=exit_code, cancelling=False)

    def _settle(self) -> None:
        for run in self.runs.values():
            while any(self._move_on(run, job) for job in run["jobs"].values()):
                pass
            states = {job["state"] for job in run["jobs"].values()}
            if run["state"] not in FINAL and states <= set(FINAL):
                bad = states & {"FAILED", "DEAD"}
                run["state"] = "FAILED" if bad else "CANCELLED" if run["asked"] else "COMPLETED"
                run["ended_under"] = self._fence(*run["parent"], started=True) if run["parent"] else 0

    def _move_on(self, run: Dict, job: Dict) -> bool:
        if job["state"] != "BLOCKED":
            return False
        parents = {run["jobs"][parent]["state"] for parent in job["parents"]}
        if parents & {"FAILED", "CANCELLED", "DEAD"}:
            self._finish(job, "CANCELLED")
        elif parents <= {"COMPLETED"}:
            self._ready(run, job)
        return job["state"] != "BLOCKED"

    def _fence(self, run_id: str, job_id: str, started: bool = False) -> int:
        for fence, attempt in self.attempts.items():
            if (attempt["run"], attempt["job"]) == (run_id, job_id) and (attempt["started"] or not started):
                return fence
        return 0


def is_tangled(specs: list[Spec], existing: Collection[str]) -> bool:
    """Say whether jobs are no graph to be added to those that exist: none, an id twice, no such parent, a circle."""
    ids = [spec["job_id"] for spec in specs]
    known = {*ids, *existing}
    if not ids or len(set(ids)) < len(ids) or set(ids) & set(existing):
        return True
    if any(not known.issuperset(spec["parents"]) for spec in specs):
        return True
    left = {spec["job_id"]: set(spec["parents"]) & set(ids) for spec in specs}
    while free := [job_id for job_id, parents in left.items() if not parents & left.keys()]:
        for job_id in free:
            del left[job_id]
    return bool(left)
