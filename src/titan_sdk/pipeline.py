"""A pipeline file read: its jobs, its warnings, and everything wrong with it in one error.

Each problem has a place, an excerpt and what was expected. A fault in one field does not hide the next: jobs that are
half right still take part in the graph, so that a cycle, an unknown parent, a missing script and a wrong type are told
together. Scripts are looked for from the file's folder; one that is not there may be in the Master's registry, so it
is a problem of its own only for a file that nobody submits, or beside other problems.
"""

from __future__ import annotations

import os

from titan_sdk.errors import PROBLEMS_SHOWN_MAX, FileMissing, Invalid
from titan_sdk.job import LATER, TitanJob
from titan_sdk.pipeline_fields import ID, JOB, NAME_OF, TOP, Wrong, text_of, truth_of
from titan_sdk.pipeline_nodes import FILE_BYTES_MAX, Unreadable, decoded, lines_of, tree_of
from titan_sdk.pipeline_words import excerpt, nearest, shown
from titan_sdk.scripts import PIPELINE_SUFFIXES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from titan_sdk.pipeline_nodes import Node, Place

START = (1, 1)
NEIGHBOURS_MAX = 1_000
_FIELD_AT_MASTER = {"delay_ms": "delay", "script": "file", "source_path": "file", **NAME_OF}


class Pipeline:
    """What a file says: `name`, `jobs` (TitanJob objects whose paths are good from here), `warnings`.

    `missing` are the scripts that are not on this disk: path, place, job id.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.splitext(os.path.basename(path))[0]
        self.jobs: list[TitanJob] = []
        self.warnings: list[str] = []
        self.problems: list[dict[str, str]] = []
        self.missing: list[tuple[str, Place, str]] = []
        self.lines: list[str] = []
        self.places: dict[tuple[str, str], Place] = {}
        self._compared = 0

    def near(self, word: str, words: Callable[[], Iterable[str]]) -> str:
        """Return ": did you mean X?" or ""; after a few words of a file "", because comparing is slow."""
        self._compared += 1
        return nearest(word, words()) if self._compared <= PROBLEMS_SHOWN_MAX else ""

    def tell(self, message: str, place: Place, job_id: str = "", field: str = "", code: str = "invalid") -> None:
        """Add a problem."""
        self.problems.append(self.problem(message, place, job_id, field, code))

    def problem(
        self, message: str, place: Place, job_id: str = "", field: str = "", code: str = "invalid"
    ) -> dict[str, str]:
        """Return a problem as Invalid keeps it."""
        found = {"code": code, "message": message, "place": f"{self.path}:{place[0]}:{place[1]}"}
        if job_id:
            found["job_id"] = job_id
        if field:
            found["field"] = field
        if part := excerpt(self.lines, *place):
            found["excerpt"] = part
        return found

    def error(self, problems: list[dict[str, str]]) -> Invalid:
        """Return (not raise) the one error for `problems`."""
        missing = [problem for problem in problems if problem["code"] == "file_not_found"]
        kind = FileMissing if missing else Invalid
        count = f"{len(problems)} problems" if len(problems) != 1 else "a problem"
        hint = f"mend it; titan validate {self.path} looks again and runs nothing"
        if missing:
            hint += "; a script may also be put at the Master before: client.upload_file(path)"
        code = problems[0]["code"] if len(problems) == 1 else "invalid"
        return kind(f"{self.path} has {count}; nothing was run", code=code, hint=hint, problems=problems)

    def placed(self, error: Invalid) -> Invalid:
        """Return what the Master refused, each problem with its place in this file."""
        found = []
        for problem in error.problems or ({"code": error.code, "message": error.message},):
            job_id, field = problem.get("job_id", ""), problem.get("field", "")
            field = _FIELD_AT_MASTER.get(field, field)
            place = self.places.get((job_id, field)) or self.places.get((job_id, "")) or START
            code = problem.get("code", "invalid")
            found.append(self.problem(problem.get("message", ""), place, job_id, field, code))
        return self.error(found)


def read_pipeline(path: str | os.PathLike[str], *, scripts_are_here: bool = False) -> Pipeline:
    """Read the file at `path`; with `scripts_are_here` a script that is not on this disk is a problem.

    Raises Invalid with every problem of the file, FileMissing (also a FileNotFoundError) when it is not there.
    """
    data = _read(path)
    if data.startswith(b"#!") or os.fspath(path).endswith(".py"):
        raise Invalid(
            f"{shown(os.fspath(path))} is a script, not a pipeline file",
            hint=f"titan run {_shown_path(path)} runs it; a pipeline file (YAML) names scripts and their order",
        )
    pipeline = Pipeline(_shown_path(path))
    try:
        text = decoded(data)
        pipeline.lines = lines_of(text)
        root = tree_of(text, pipeline.tell)
        _read_top(pipeline, root, os.path.dirname(os.fspath(path)))
    except Unreadable as error:
        if not pipeline.lines:
            pipeline.lines = lines_of(data[:FILE_BYTES_MAX].decode("utf-8", "replace"))
        pipeline.tell(error.message, error.place)
    except ModuleNotFoundError as error:
        raise Invalid(
            f"this Python has no PyYAML, which reads pipeline files ({error})",
            hint="pip install pyyaml here, or make the DAG in Python: client.submit_dag",
        ) from None
    if pipeline.missing and (pipeline.problems or scripts_are_here):
        _tell_missing(pipeline)
    if pipeline.problems:
        raise pipeline.error(sorted(pipeline.problems, key=_order))
    return pipeline


def _tell_missing(pipeline: Pipeline) -> None:
    for script, place, job_id in pipeline.missing:
        folder, base = os.path.split(script)
        near = pipeline.near(base, lambda folder=folder: _scripts_in(folder))  # type: ignore[misc]
        pipeline.tell(f"there is no file {shown(script)}{near}", place, job_id, "file", "file_not_found")


def _order(problem: dict[str, str]) -> tuple[int, int]:
    _, line, column = problem["place"].rsplit(":", 2)
    return int(line), int(column)


def _shown_path(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def _read(path: Any) -> bytes:
    import stat

    try:
        text = os.fspath(path)
        if not isinstance(text, str):
            raise TypeError
    except TypeError:
        raise Invalid(f"path is of type {type(path).__name__}: give the path of a pipeline file") from None
    name = shown(text)
    try:
        # Not opened before it is known: a pipe would be waited for.
        if not stat.S_ISREG(os.stat(text).st_mode):
            raise Invalid(f"{name} is not a regular file", hint="name a pipeline file, such as etl.yaml")
        with open(text, "rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        near = nearest(os.path.basename(text), _neighbours(os.path.dirname(text)))
        hint = "name a pipeline file; docs/how-to/pipeline-files.md shows one"
        raise FileMissing(f"there is no file {name}{near}", hint=hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Invalid(f"{name} cannot be read: {reason}", hint="name a pipeline file that this user may read") from None


def _neighbours(folder: str) -> list[str]:
    from itertools import islice

    try:
        with os.scandir(folder or ".") as found:
            return [entry.name for entry in islice(found, NEIGHBOURS_MAX)]
    except (OSError, ValueError):
        return []


def _scripts_in(folder: str) -> list[str]:
    return [name for name in _neighbours(folder) if not name.endswith(PIPELINE_SUFFIXES)]


def _read_top(pipeline: Pipeline, root: Node, folder: str) -> None:
    if root.kind != "map":
        what = "is empty" if root.is_null else f"is {'a list' if root.kind == 'list' else 'text'}, not a mapping"
        example = "give name: and jobs:, a list of jobs with id: and file:"
        if root.kind != "broken":
            pipeline.tell(f"the file {what}: {example}", root.place)
        return
    jobs = None
    for key, value in root.entries:
        try:
            if key.text == "name":
                pipeline.name = text_of("name", value)
                pipeline.places["", "name"] = value.place
            elif key.text == "version":
                text_of("version", value)
            elif key.text == "project":
                if truth_of("project", value):
                    pipeline.warnings.append(_only_own_files(pipeline, value))
            elif key.text == "jobs":
                jobs = value
            elif not key.text.startswith("x-"):
                pipeline.tell(_unknown_top(key.text), key.place, field=key.text)
        except Wrong as wrong:
            _tell_wrong(pipeline, wrong, value, field=key.text)
    if jobs is None:
        pipeline.tell("jobs is missing: give a list of jobs, each with id: and file:", root.place, field="jobs")
    else:
        _read_jobs(pipeline, jobs, folder)


def _only_own_files(pipeline: Pipeline, node: Node) -> str:
    return (
        f"{pipeline.path}:{node.line}:{node.column}: project: true sends no folder in this version: each job gets its "
        "own file, and what that imports from beside it is not there"
    )


def _unknown_top(name: str) -> str:
    if name in JOB or name in NAME_OF or name in LATER:
        return f"{name} belongs to a job: put it under jobs:, in the job it is meant for"
    return f"{shown(name)} is not a field of a pipeline{nearest(name, TOP) or ': ' + ', '.join(TOP)}"


def _read_jobs(pipeline: Pipeline, jobs: Node, folder: str) -> None:
    if jobs.kind != "list" or not jobs.items:
        what = (
            "empty" if jobs.is_null or jobs.kind == "list" else "a mapping" if jobs.kind == "map" else shown(jobs.text)
        )
        if jobs.kind != "broken":
            pipeline.tell(f"jobs is {what}: give a list, each job begun by '- id: NAME'", jobs.place, field="jobs")
        return
    from titan_sdk.pipeline_graph import look_at_graph

    read: list[tuple[str, Node, Node | None]] = []
    for node in jobs.items:
        if node.kind == "map":
            read.append(_read_job(pipeline, node, folder))
        elif node.kind != "broken":
            what = "empty" if node.is_null else "a list" if node.kind == "list" else shown(node.text)
            pipeline.tell(f"a job is {what}: give '- id: NAME' and the job's other fields below it", node.place)
    look_at_graph(pipeline, read)


def _read_job(pipeline: Pipeline, node: Node, folder: str) -> tuple[str, Node, Node | None]:
    """Read one job; return its id ("" without one), the place to show for it, and the node of its parents."""
    values = {_name_of(key.text): value for key, value in node.entries}
    id_node = values.get("id")
    written = id_node.text if id_node is not None and id_node.kind == "text" else ""
    job_id = written if ID.fullmatch(written) else ""
    fields: dict[str, Any] = {}
    seen: set[str] = set()
    for key, value in node.entries:
        name = _name_of(key.text)
        if name in seen:
            pipeline.tell(f"{key.text} says the same as {name}, which is here too", key.place, job_id, name)
        elif name in JOB:
            seen.add(name)
            pipeline.places[job_id, name] = value.place
            try:
                fields[JOB[name].job_field] = JOB[name].read(name, value)
            except Wrong as wrong:
                _tell_wrong(pipeline, wrong, value, job_id, name)
        else:
            _tell_unknown(pipeline, key, value, job_id)
    pipeline.places[job_id, ""] = node.place
    for name in ("id", "file"):
        if name not in values:
            pipeline.tell(f"{name} is missing: {_EXAMPLES[name]}", node.place, job_id, name)
    if "filename" in fields:
        fields["filename"] = _look_for(pipeline, fields["filename"], values["file"], folder, job_id)
    if "job_id" in fields and "filename" in fields:
        pipeline.jobs.append(TitanJob(**fields))
    return written, id_node or node, values.get("depends_on")


_EXAMPLES = {"id": "give each job a name of its own, id: extract", "file": "give the script it runs, file: extract.py"}


def _name_of(key: str) -> str:
    return NAME_OF.get(key, key)


def _tell_wrong(pipeline: Pipeline, wrong: Wrong, node: Node, job_id: str = "", field: str = "") -> None:
    if node.kind != "broken":
        pipeline.tell(wrong.message, wrong.place, job_id, field, wrong.code)


def _tell_unknown(pipeline: Pipeline, key: Node, value: Node, job_id: str) -> None:
    name = key.text
    if name in LATER:
        if value.text not in _NOT_SET.get(name, ()):
            message = f"{name}: {LATER[name]}, not available in this version; leave {name} out"
            pipeline.tell(message, key.place, job_id, name, "unsupported")
        return
    if name in TOP:
        message = f"{name} belongs to the pipeline: put it above jobs:, without indentation"
    else:
        near = _near_other(name) or pipeline.near(name, lambda: [*JOB, *LATER]) or _ALL_FIELDS
        message = f"{shown(name)} is not a field of a job{near}"
    pipeline.tell(message, key.place, job_id, name)


_NOT_SET = {"port": ("0",), "is_archive": ("false",), "max_wait_seconds": ("172800",)}
_ALL_FIELDS = f": {', '.join(JOB)}"
# What other tools call it.
_OTHER_WORDS = {
    "needs": "depends_on", "after": "depends_on", "dependencies": "depends_on", "requires": "depends_on",
    "script": "file", "command": "file", "run": "file", "path": "file", "name": "id", "timeout": "timeout_s",
    "environment": "env", "capability": "requirement", "tags": "requirement", "retry": "retries",
}  # fmt: skip


def _near_other(name: str) -> str:
    return f": did you mean {_OTHER_WORDS[name]}?" if name in _OTHER_WORDS else ""


def _look_for(pipeline: Pipeline, name: str, node: Node, folder: str, job_id: str) -> str:
    """Return the path of a job's script from here; note when it is not there."""
    path = os.path.join(folder, name)
    if not os.path.lexists(path):
        pipeline.missing.append((path, node.place, job_id))
    return path
