"""Mend a folder of broken scripts: test each, think of repairs, test those side by side, keep what works.

Run it as `python examples/code_healer/heal.py FOLDER`, with `titan up` running. A script NAME.py is well when it ends
with exit code 0 and, if there is a file NAME.expected, prints exactly that. Every test is a job. The originals stay
as they are; what was mended goes to the folder `healed`.
"""

import argparse
import difflib
import heapq
import itertools
import sys
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from planner import Model, difference, distinct, rules
from source import Fault, Proposal

from titan_sdk import Run, TitanClient, TitanJob

WIDTH = 16  # repairs tested side by side
PATIENCE = 3  # how often, before others have their turn
FIRST_PATIENCE = 12  # the same for the script as it came: most faults are one edit away
ALIKE_MAX = 3


@dataclass(frozen=True)
class Verdict:
    """What a test said. `rank`: how near it came, to compare repairs of one script."""

    passed: bool
    fault: Fault
    log: str
    rank: tuple[int, bool, float]


@dataclass
class Lead:
    """A text that is not well yet, and what might be done about it. The most promising is the smallest."""

    text: str
    verdict: Verdict
    proposals: Iterator[Proposal]
    edits: int = 0
    spent: int = 0

    def __lt__(self, other: "Lead") -> bool:
        return self._place() < other._place()

    def _place(self) -> tuple[float, ...]:
        """Few edits and a better result go first; what took many tests lets others pass."""
        right, _, near = self.verdict.rank
        patience = PATIENCE if self.edits else FIRST_PATIENCE
        return (self.edits // 3 + self.spent // patience, -right, self.edits and 1, -near)


class Patient:
    """One script, and the cluster that its tests run on."""

    def __init__(self, client: TitanClient, path: Path, agent_run_id: str, jobs_max: int, test_s: float) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        answer = path.with_suffix(".expected")
        self.expected = answer.read_text(encoding="utf-8") if answer.exists() else None
        self.tests = 0
        self._client = client
        self._agent_run_id = agent_run_id
        self._jobs_max = jobs_max
        self._test_s = test_s
        self._model = Model.of_environment()
        self._seen: set[str] = set()  # texts tested or about to be
        self._shown: Counter[tuple[str, str, str]] = Counter()  # ways to be wrong that somebody goes on from

    def test(self, texts: list[str]) -> list[Verdict]:
        """Run each text as a job of one DAG, side by side."""
        jobs = [
            TitanJob(f"test_{self.tests + n}", self.path.name, script_content=text, timeout_s=self._test_s)
            for n, text in enumerate(texts)
        ]
        self.tests += len(jobs)
        run = self._client.submit_dag(f"heal {self.path.stem}", jobs, agent_run_id=self._agent_run_id).wait()
        return [self._verdict(run, job) for job in run.jobs]

    def _verdict(self, run: Run, job: dict[str, object]) -> Verdict:
        log = run.logs(str(job["id"]))
        completed = job["state"] == "COMPLETED"
        wanted = (self.expected or "").splitlines()
        pairs = zip(wanted, log.splitlines(), strict=False)
        right = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        passed = completed and self.expected in (None, log)
        fault = Fault.read(log, self.path.name)
        if completed:
            near = round(difflib.SequenceMatcher(None, log, self.expected or "").ratio(), 2)
        else:  # an error further down is as good as an output that is half right
            near = round(0.5 * fault.lines[-1] / (self.text.count("\n") + 1), 2) if fault.lines else 0.0
        return Verdict(passed, fault, log, (right, completed, near))

    def heal(self) -> str | None:
        """Return a text that passes, or None when the budget of tests is spent or nobody knows more."""
        first = self.test([self.text])[0]
        if first.passed:
            return self.text
        print(f"  {first.fault.kind}: {first.fault.message}")
        leads = [Lead(self.text, first, self._proposals(self.text, first))]
        while leads and self.tests < self._jobs_max:
            lead = heapq.heappop(leads)
            batch = list(itertools.islice(lead.proposals, min(WIDTH, self._jobs_max - self.tests)))
            if not batch:
                continue
            lead.spent += 1
            heapq.heappush(leads, lead)
            verdicts = self.test([proposal.text for proposal in batch])
            for proposal, verdict in zip(batch, verdicts, strict=True):
                if verdict.passed:
                    print(f"  {proposal.why}")
                    return proposal.text
                if self._is_nearer(verdict, lead.verdict):
                    more = self._proposals(proposal.text, verdict)
                    heapq.heappush(leads, Lead(proposal.text, verdict, more, lead.edits + 1))
        return None

    def _is_nearer(self, verdict: Verdict, parent: Verdict) -> bool:
        """Tell whether to go on from there: more is right, or another fault shows and nothing was lost.

        Of repairs that fail alike only the first few are gone on from.
        """
        printed = "" if verdict.fault.lines else verdict.log
        shows = (verdict.fault.kind, verdict.fault.message, printed)
        if self._shown[shows] >= ALIKE_MAX:
            return False
        other = verdict.fault.message != parent.fault.message and verdict.rank[:2] >= parent.rank[:2]
        stuck = parent.fault.kind in ("WrongOutput", "Timeout")
        nearer = verdict.rank[:2] > parent.rank[:2] or (other and not stuck)
        if nearer:
            self._shown[shows] += 1
        return nearer

    def _proposals(self, text: str, verdict: Verdict) -> Iterator[Proposal]:
        found = rules(text, verdict.fault)
        if self._model:
            found = itertools.chain(self._model.proposals(text, verdict.log, self.expected), found)
        return distinct(found, text, self._seen)


def main() -> int:
    parser = argparse.ArgumentParser(description="Mend a folder of broken scripts; every test is a job.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("healed"), help="where mended scripts go")
    parser.add_argument("--jobs", type=int, default=640, help="tests a script at most")
    parser.add_argument("--timeout", type=float, default=3, help="seconds one test may take")
    options = parser.parse_args()
    scripts = sorted(options.folder.glob("*.py"))
    if not scripts:
        parser.error(f"no Python script in {options.folder}")
    warnings.simplefilter("ignore", SyntaxWarning)  # what repairs may look like is no news
    agent_run_id = f"healer-{uuid.uuid4().hex[:8]}"
    healed = 0
    with TitanClient() as client:
        for path in scripts:
            print(f"{path.name}", flush=True)
            patient = Patient(client, path, agent_run_id, options.jobs, options.timeout)
            text = patient.heal()
            if text is None:
                print(f"  NOT HEALED after {patient.tests} tests", flush=True)
                continue
            healed += 1
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / path.name).write_text(text, encoding="utf-8")
            print(
                "".join(f"    {line}\n" for line in difference(patient.text, text, path.name).splitlines()[2:]), end=""
            )
            print(f"  HEALED after {patient.tests} tests", flush=True)
    print(f"{healed} of {len(scripts)} healed; all tests: titan ps --agent-run {agent_run_id}")
    return 0 if healed == len(scripts) else 1


if __name__ == "__main__":
    sys.exit(main())
