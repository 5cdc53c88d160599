"""What each command prints with --json, as types: docs/reference/json.md is made of them, real output is held to them.

What the HTTP API answers has its types in `titan.model.views`; here is what the command line makes of that.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from titan.model import views
from titan.model.views import AttemptView, Explanation, JobView, RunView, WorkerView


class RunPage(views.RunList, frozen=True):
    """Runs, newest first; `next` goes into --next."""


class JobPage(views.JobList, frozen=True):
    """Jobs of a run in order of submission; `next` goes into --next."""


def _with_kind(kind: str, view: type[Struct], doc: str) -> type[Struct]:
    fields = [(field.name, field.type) for field in msgspec.structs.fields(view)]
    made = msgspec.defstruct(f"{kind.capitalize()}Cancelled", [("kind", Literal[kind]), *fields])
    made.__doc__ = doc
    return made


RunCancelled = _with_kind("run", RunView, "A run with `kind` before its fields.")
JobCancelled = _with_kind("job", JobView, "A job with `kind` before its fields.")


class Ready(Struct):
    """What titan up prints once it is ready."""

    version: str
    url: str
    pid: int
    home: str
    workers: int
    slots: int
    capabilities: list[str]
    ready_s: float


class Stopped(Struct):
    """Whether something was up, and its pid."""

    stopped: bool
    pid: int | None
    home: str


class Status(views.Stats, frozen=True, kw_only=True):
    """The cluster: where it is, and the counters of GET /stats."""

    state: Literal["READY"]
    url: str


class Check(Struct):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "bad"]
    found: str
    remedy: str


class Checks(Struct):
    """All that was looked at."""

    checks: list[Check]


class Ran(Struct):
    """A run of one script and its job, at its end, or as it was left."""

    run: RunView
    job: JobView


class RunLine(Struct):
    """First line: the run as it began."""

    kind: Literal["run"]
    run: RunView


class LogLine(Struct):
    """A piece of a job's log."""

    kind: Literal["log"]
    run_id: str
    job_id: str
    text: str


class JobEndLine(Struct):
    """Last line: how the job ended."""

    kind: Literal["end"]
    run_id: str
    job_id: str
    state: str
    job: JobView


class JobLine(Struct):
    """A job of the run has ended."""

    kind: Literal["job"]
    job: JobView


class RunEndLine(Struct):
    """Last line: how the run ended."""

    kind: Literal["end"]
    state: str
    run: RunView


class SubmittedLine(Struct):
    """First line: the run, what will keep its jobs waiting, and which files were found at the Master."""

    kind: Literal["run"]
    run: RunView
    warnings: list[str]
    resolved: dict[str, str]


class Submitted(Struct):
    """A run, what will keep its jobs waiting, and which files were found at the Master."""

    run: RunView
    warnings: list[str]
    resolved: dict[str, str]


class FileChecked(Struct):
    """One pipeline file: `name` and `jobs` (how many) are null when it is not valid."""

    file: str
    valid: bool
    name: str | None
    jobs: int | None
    warnings: list[str]
    problems: list[dict[str, Any]]


class FilesChecked(Struct):
    """All files that were named."""

    files: list[FileChecked]


class Node(Struct, omit_defaults=True):
    """A job and its parents: of a file with `file` and `requirement`, of a run with `state`."""

    id: str
    depends_on: list[str]
    file: str = ""
    requirement: list[str] = []
    state: str = ""


class Graph(Struct):
    """A pipeline file or a run, drawn."""

    name: str
    jobs: list[Node]


class Top(views.Overview, frozen=True, kw_only=True):
    """GET /overview, and where that was."""

    url: str


class RunShown(Struct):
    """A run, the first of its jobs, and the runs that they submitted, of the newest 100 of its agent run."""

    kind: Literal["run"]
    run: RunView
    jobs: list[JobView]
    next: str | None
    children: list[RunView]


class JobShown(Struct):
    """A job, its attempts, and why it is where it is."""

    kind: Literal["job"]
    job: JobView
    attempts: list[AttemptView]
    explanation: Explanation


class Explanations(Struct):
    """Why the jobs of a run that are not done are where they are; `more` are left out."""

    explanations: list[Explanation]
    more: int


class Log(Struct):
    """What an attempt printed; `complete`: it will not grow."""

    run_id: str
    job_id: str
    attempt: int
    text: str
    complete: bool


class Cancelled(Struct):
    """What was asked to end, as it is now: RunCancelled or JobCancelled each."""

    cancelled: list[dict[str, Any]]


class Retried(Struct):
    """The run in its new generation, and the files that were sent anew."""

    run: RunView
    sent: list[str]


class RetriedLine(Struct):
    """First line: the run in its new generation, and the files that were sent anew."""

    kind: Literal["run"]
    run: RunView
    sent: list[str]


class RunEvent(Struct):
    """A run has changed."""

    kind: Literal["run"]
    id: str
    run_id: str
    job_id: str
    state: str
    generation: int
    total: int
    completed: int
    failed: int
    cancelled: int
    dead: int


class JobEvent(Struct):
    """A job has changed."""

    kind: Literal["job"]
    id: str
    run_id: str
    job_id: str
    state: str
    reason: str
    attempt: int


class WorkerEvent(Struct):
    """A worker came, went, leaves or was given up."""

    kind: Literal["worker"]
    id: str
    name: str
    connected: bool
    draining: bool
    forgotten: bool


class Resync(Struct):
    """Some events may have been missed: look again at what you know."""

    kind: Literal["resync"]
    id: str


class Value(Struct):
    """A key and its value; bytes as base64."""

    key: str
    value: str
    kind: Literal["text", "bytes"]


class Put(Struct):
    """A key, and how many bytes it holds now."""

    key: str
    size: int


class Deleted(Struct):
    """For each key, whether it was there."""

    deleted: dict[str, bool]


class Keys(Struct):
    """Keys, sorted."""

    keys: list[str]


class Number(Struct):
    """A key and the number it holds now."""

    key: str
    value: int


class Write(Struct):
    """A key was written; `op` says how."""

    kind: Literal["store"]
    id: str
    key: str
    op: str


class Artifacts(Struct):
    """Artifacts or versions of one."""

    artifacts: list[views.ArtifactView]


class Saved(Struct):
    """The version that was saved, and the file it was saved as."""

    path: str
    key: str
    version: int
    sha256: str
    size: int


class ArtifactDeleted(Struct):
    """How many versions went."""

    key: str
    deleted: int


class Workers(Struct):
    """Workers."""

    workers: list[WorkerView]


class WorkersRemoved(Struct):
    """Workers that are let in no more."""

    workers: list[views.WorkerRemoved]


class JoinToken(views.Invitation, frozen=True, kw_only=True):
    """An enrolment that is good once, and the line to paste on the other machine."""

    line: str


class Tokens(Struct):
    """Tokens, without what lets anybody in."""

    tokens: list[views.TokenView]


class Audit(Struct):
    """Rows of the audit, newest first."""

    audit: list[views.AuditEntry]


class AuditVerified(Struct):
    """How many rows are kept, each as it was written, the last that was let go (0: none), and the newest one's hash."""

    rows: int
    let_go: int
    hash: str | None


class Setting(Struct):
    """One setting and where it is from; of a token only whether it is set."""

    name: str
    value: str
    origin: str


class SettingsFile(Struct):
    """A file that was looked for."""

    path: str
    found: bool


class Config(Struct):
    """The settings in force."""

    settings: list[Setting]
    files: list[SettingsFile]


class Script(Struct):
    """What a shell reads to complete our words."""

    shell: str
    script: str


class Fault(Struct):
    """What went wrong. `problems` lists everything that is wrong with what was given."""

    code: str
    message: str
    hint: str
    problems: list[dict[str, Any]]
    exit_code: int


class Failed(Struct):
    """On stderr, when a command does not succeed."""

    error: Fault


# How it is asked -> what stdout holds. Several types under one way are the lines of NDJSON, or what ID may name.
SHAPES: dict[str, dict[str, tuple[type, ...]]] = {
    "titan up": {"": (Ready,)},
    "titan down": {"": (Stopped,)},
    "titan status": {"": (Status,), "ID": (RunView, JobView)},
    "titan doctor": {"": (Checks,)},
    "titan run": {"FILE": (Ran,), "FILE -f": (RunLine, LogLine, JobEndLine)},
    "titan submit": {"FILE": (Submitted,), "FILE -f": (SubmittedLine, JobLine, RunEndLine)},
    "titan validate": {"FILE...": (FilesChecked,)},
    "titan graph": {"FILE or RUN": (Graph,)},
    "titan ps": {"": (RunPage,), "RUN": (JobPage,)},
    "titan top": {"": (Top,)},
    "titan show": {"ID": (RunShown, JobShown), "RUN -f": (JobLine, RunEndLine)},
    "titan explain": {"JOB": (Explanation,), "RUN": (Explanations,)},
    "titan logs": {"ID": (Log,), "ID -f": (LogLine, JobEndLine)},
    "titan wait": {"ID": (RunView, JobView)},
    "titan cancel": {"ID...": (Cancelled,)},
    "titan retry": {"ID": (Retried,), "ID -f": (RetriedLine, JobLine, RunEndLine)},
    "titan events": {"": (RunEvent, JobEvent, WorkerEvent, Resync)},
    "titan store get": {"KEY": (Value,)},
    "titan store put": {"KEY VALUE": (Put,)},
    "titan store del": {"KEY...": (Deleted,)},
    "titan store ls": {"": (Keys,)},
    "titan store incr": {"KEY": (Number,)},
    "titan store watch": {"": (Write, Resync)},
    "titan artifacts ls": {"": (Artifacts,)},
    "titan artifacts get": {"KEY": (Saved,)},
    "titan artifacts put": {"KEY PATH": (views.ArtifactView,)},
    "titan artifacts rm": {"KEY": (ArtifactDeleted,)},
    "titan worker ls": {"": (Workers,)},
    "titan worker drain": {"NAME...": (Workers,)},
    "titan worker remove": {"NAME...": (WorkersRemoved,)},
    "titan worker join-token": {"": (JoinToken,)},
    "titan master": {"": (Ready,)},
    "titan token create": {"NAME": (views.TokenMade,)},
    "titan token ls": {"": (Tokens,)},
    "titan token revoke": {"ID...": (Tokens,)},
    "titan audit ls": {"": (Audit,)},
    "titan audit verify": {"": (AuditVerified,)},
    "titan config ls": {"": (Config,)},
    "titan completion": {"SHELL": (Script,)},
}


def fits(document: Any, shape: type) -> bool:
    """Whether a decoded JSON document has every field of the shape, of its type, and no other."""
    try:
        found = msgspec.convert(document, shape)
    except msgspec.ValidationError:
        return False
    again: Any = msgspec.json.decode(msgspec.json.encode(found))
    return bool(again == document)
