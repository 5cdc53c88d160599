"""From recorded jobs to the bytes of a submission: files read, arguments split, everything wrong collected.

The Master checks ids, limits and the graph, and it knows the registry; only this side knows the caller's disk and
how the caller's values look. To give one error that lists all problems, a field that is wrong here is sent as
BROKEN, which no field accepts: the Master refuses the whole and lists what else it finds, and `merged` puts our
own words in place of its complaint about BROKEN.

Up to JOBS_INLINE_MAX jobs travel as one JSON document, if it is short. More, or larger ones, travel as lines, each
encoded when it is sent, so a DAG of 100,000 jobs needs no more memory than its TitanJob objects.
"""

from __future__ import annotations

import os
from itertools import chain
from operator import attrgetter

from titan_sdk.api import why_not
from titan_sdk.errors import FileMissing, Invalid
from titan_sdk.job import GENERAL, TitanJob
from titan_sdk.scripts import Scripts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    Problems = list[dict[str, str]]

JOBS_INLINE_MAX = 1_000
DOCUMENT_BYTES_MAX = 768 * 1024  # the Master takes 1 MiB in one document or line
BLOBS_LINE_BYTES_MAX = 512 * 1024
CHUNK_BYTES = 64 * 1024
NEIGHBOURS_MAX = 1_000
NAME_CHARS_MAX = 60
_NOWHERE = "mend the name, or upload_file() puts it there"
_NOWHERE_IN_JOB = "a job's folder has its own script alone: give script_content=, or upload_file() it before"
BROKEN: list[dict[str, str]] = [{}]
JSON = "application/json"
NDJSON = "application/x-ndjson"

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_IN_OTHER_FORM = {"job_id", "filename", "script_content", "args", "parents", "requirement", "delay", "env"}
_AS_THEY_ARE = [field for field in vars(TitanJob("", "")) if field not in _IN_OTHER_FORM]
_values_of = attrgetter(*_AS_THEY_ARE)
_DEFAULTS = _values_of(TitanJob("", ""))


class Submission:
    """One submission made ready: what to upload first, and a body that can be sent as often as needed.

    `header` holds the fields beside the jobs. `may_stream` false: one JSON document, whatever its size. `digest` is
    the SHA-256 of everything that is sent.
    """

    def __init__(self, header: Mapping[str, Any], jobs: Sequence[TitanJob], *, may_stream: bool = True) -> None:
        """Read every file once and look at every job. Raises Invalid when `jobs` holds something else."""
        from hashlib import sha256

        self.problems: Problems = []
        self.scripts = Scripts()
        self._jobs = jobs
        self._encode = _encoder()
        for index, job in enumerate(jobs):
            if not isinstance(job, TitanJob):
                raise Invalid(f"jobs[{index}] is {job!r}, of type {type(job).__name__}: give TitanJob objects")
        self.streamed = may_stream and len(jobs) > JOBS_INLINE_MAX
        digest = sha256()
        lines: list[bytes] = []
        lines_bytes = 0
        for line in self._lines(self.problems):
            digest.update(line)
            lines_bytes += len(line)
            self.streamed = self.streamed or (may_stream and lines_bytes > DOCUMENT_BYTES_MAX)
            if self.streamed:
                lines.clear()
            else:
                lines.append(line)
        first, *more = _groups(self.scripts.inline) if may_stream else [self.scripts.inline]
        self.streamed = self.streamed or bool(more) or (may_stream and lines_bytes + _size(first) > DOCUMENT_BYTES_MAX)
        head = self._encode_header({**header, "blobs": first})
        self._heads = [head, *(self._encode({"blobs": group}).encode() for group in more)]
        for each in self._heads:
            digest.update(each)
        self.digest = digest.digest()
        self._document = b"" if self.streamed else head[:-1] + b',"jobs":[' + b",".join(lines) + b"]}"

    @property
    def content_type(self) -> str:
        """`application/json`, or `application/x-ndjson` for many jobs."""
        return NDJSON if self.streamed else JSON

    def body(self) -> bytes | Iterator[bytes]:
        """Return the body, from its beginning at each call: bytes, or pieces of about CHUNK_BYTES."""
        return self._pieces() if self.streamed else self._document

    def merged(self, error: Invalid | None) -> Invalid:
        """Return one Invalid with our problems and those of the Master's `error`, files looked for named in full."""
        ours = {(problem["job_id"], problem["field"]) for problem in self.problems}
        theirs = [self._with_place(problem) for problem in (error.problems if error else ())]
        found = self.problems + [
            problem for problem in theirs if (problem.get("job_id", ""), problem.get("field", "")) not in ours
        ]
        if not found and error is not None:
            return error
        kind = FileMissing if any(problem.get("code") == "file_not_found" for problem in found) else Invalid
        return kind(
            found[0]["message"] if len(found) == 1 else f"the submission has {len(found)} problems; nothing was run",
            code=found[0].get("code") if len(found) == 1 else None,
            hint=(error.hint if error else "")
            or ((_NOWHERE_IN_JOB if "TITAN_JOB_ID" in os.environ else _NOWHERE) if kind is FileMissing else ""),
            problems=found,
            request_id=error.request_id if error else "",
        )

    def _lines(self, problems: Problems) -> Iterator[bytes]:
        for job in self._jobs:
            document = _job_document(job, self.scripts, problems)
            try:
                yield self._encode(document).encode()
            except (TypeError, ValueError):
                yield self._encode(_mended(document, self._encode, problems)).encode()

    def _encode_header(self, header: dict[str, Any]) -> bytes:
        if self.streamed:
            header["jobs"] = len(self._jobs)
        try:
            return self._encode(header).encode()
        except (TypeError, ValueError) as error:
            raise Invalid(f"the name or agent_run_id cannot be sent: {error}", hint="give plain text") from None

    def _pieces(self) -> Iterator[bytes]:
        pending: list[bytes] = []
        size = 0
        for line in chain(self._heads, self._lines([])):
            pending.append(line)
            size += len(line) + 1
            if size >= CHUNK_BYTES:
                yield b"\n".join(pending) + b"\n"
                pending, size = [], 0
        if pending:
            yield b"\n".join(pending) + b"\n"

    def _with_place(self, problem: dict[str, str]) -> dict[str, str]:
        if problem.get("code") != "file_not_found":
            return problem
        job = next((job for job in self._jobs if job.job_id == problem.get("job_id")), None)
        if job is None:
            return problem
        name = str(_name_of(job))
        base = name.replace("\\", "/").rsplit("/", 1)[-1]
        path = self.scripts.named(name).path
        looked = f"{name!r} is neither on this disk ({path}) "
        return {**problem, "message": f"{looked}nor, as {base!r}, in the Master's registry{_near(path)}"}


def _near(path: str) -> str:
    """Return ": did you mean X?" for the file of that folder whose name is most like that of `path`."""
    from difflib import get_close_matches
    from itertools import islice

    try:
        with os.scandir(os.path.dirname(path)) as found:
            names = [entry.name for entry in islice(found, NEIGHBOURS_MAX) if entry.is_file()]
    except (OSError, ValueError):
        return ""
    # Without their suffixes, which would make all short names alike.
    stems = {os.path.splitext(name)[0]: name for name in names}
    near = get_close_matches(os.path.splitext(os.path.basename(path)[:NAME_CHARS_MAX])[0], stems, 1)
    return f": did you mean {stems[near[0]]}?" if near else ""


def _size(blobs: Mapping[str, str]) -> int:
    return sum(len(digest) + len(text) + 6 for digest, text in blobs.items())


def _groups(blobs: Mapping[str, str]) -> list[dict[str, str]]:
    """Return `blobs` in as many parts as make lines of BLOBS_LINE_BYTES_MAX or a little more, at least one."""
    groups: list[dict[str, str]] = [{}]
    size = 0
    for digest, text in blobs.items():
        if size >= BLOBS_LINE_BYTES_MAX:
            groups.append({})
            size = 0
        groups[-1][digest] = text
        size += _size({digest: text})
    return groups


def _encoder() -> Callable[[Any], str]:
    import json

    return json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=True).encode


def _job_document(job: TitanJob, scripts: Scripts, problems: Problems) -> dict[str, Any]:
    """Return the JSON form of `job`, defaults left out; append what this side finds wrong."""
    document: dict[str, Any] = {"job_id": job.job_id, "filename": _name_of(job)}
    _add_script(document, job, scripts, problems)
    values = _values_of(job)
    if values != _DEFAULTS:
        named = zip(_AS_THEY_ARE, values, _DEFAULTS, strict=True)
        document.update({field: value for field, value, default in named if value != default})
    if job.args is not None and job.args != "":
        document["args"] = _args(job, problems)
    if job.parents:
        document["parents"] = _texts(job, "parents", problems)
    if job.requirement != GENERAL:
        document["requirement"] = [job.requirement] if isinstance(job.requirement, str) else job.requirement
    if job.delay != 0:
        document["delay_ms"] = _delay_ms(job, problems)
    if job.env:
        document["env"] = dict(job.env) if hasattr(job.env, "keys") else job.env
    return document


def _name_of(job: TitanJob) -> Any:
    name = job.filename
    return name if isinstance(name, str) or not hasattr(name, "__fspath__") else name.__fspath__()


def _add_script(document: dict[str, Any], job: TitanJob, scripts: Scripts, problems: Problems) -> None:
    if job.script_content is not None:
        document["script"] = _content(job, scripts, problems)
        return
    name = document["filename"]
    if not isinstance(name, str) or not name or "\0" in name:
        return  # the Master says what is wrong with it
    script = scripts.named(name)
    document["filename"] = script.name
    if script.problem:
        problems.append(
            _problem(job, "script", f"{name} cannot be read: {script.problem}; name a file that you may read")
        )
        document["script"] = BROKEN
    elif script.digest:
        document["script"] = script.digest
    if script.source_path:
        document["source_path"] = script.source_path


def _content(job: TitanJob, scripts: Scripts, problems: Problems) -> Any:
    content: Any = job.script_content
    try:
        data = content.encode() if isinstance(content, str) else bytes(memoryview(content))
    except UnicodeError:
        message = "script_content holds a lone surrogate, which is not text: leave it out, or give bytes"
        problems.append(_problem(job, "script", message))
        return BROKEN
    except TypeError:
        message = f"script_content is {content!r}, of type {type(content).__name__}: give text or bytes"
        problems.append(_problem(job, "script", message))
        return BROKEN
    return scripts.of_content(data)


def _args(job: TitanJob, problems: Problems) -> Any:
    if not isinstance(job.args, str):
        return _texts(job, "args", problems)
    import shlex

    try:
        return shlex.split(job.args)
    except ValueError as error:
        message = f"args {job.args!r} cannot be split as a shell would: {str(error).lower()}; give a list instead"
        problems.append(_problem(job, "args", message))
        return BROKEN


def _texts(job: TitanJob, field: str, problems: Problems) -> Any:
    value = getattr(job, field)
    if isinstance(value, (list, tuple)):
        wrong = next((item for item in value if not isinstance(item, str)), None)
        if wrong is None:
            return value
        message = f"{field} holds {wrong!r}, of type {type(wrong).__name__}: give text"
    else:
        message = f"{field} is {value!r}, of type {type(value).__name__}: give a list of texts"
    problems.append(_problem(job, field, message))
    return BROKEN


def _delay_ms(job: TitanJob, problems: Problems) -> Any:
    if not isinstance(job.delay, str):
        return job.delay
    text = job.delay.strip()
    unit = text.lstrip("0123456789.")
    number = text[: len(text) - len(unit)]
    try:
        return round(float(number) * _UNITS_MS[unit.strip() or "ms"])
    except (ValueError, KeyError, OverflowError):
        message = f"delay {job.delay!r} is not a time: give milliseconds, or text such as '500ms', '2s', '5m', '1h'"
        problems.append(_problem(job, "delay_ms", message))
        return BROKEN


def _mended(document: dict[str, Any], encode: Callable[[Any], str], problems: Problems) -> dict[str, Any]:
    """Return `document` with what cannot be written as JSON replaced by BROKEN, and each such field listed."""
    job_id = document["job_id"] if isinstance(document["job_id"], str) else ""
    mended = {}
    for field, value in document.items():
        try:
            encode(value).encode()
        except (TypeError, ValueError) as error:
            message = f"{field} cannot be sent: {why_not(value, error)}"
            problems.append({"code": "invalid", "message": message, "job_id": ascii(job_id)[1:-1], "field": field})
            mended[field] = BROKEN
        else:
            mended[field] = value
    return mended


def _problem(job: TitanJob, field: str, message: str) -> dict[str, str]:
    return {"code": "invalid", "message": message, "job_id": str(job.job_id), "field": field}
