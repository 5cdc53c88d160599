"""From recorded jobs to the bytes of a submission: files read, arguments split, everything wrong collected.

The Master checks ids, limits and the graph, and it knows the registry; only this side knows the caller's disk and
how the caller's values look. To give one error that lists all problems, a field that is wrong here is sent as
BROKEN, which no field accepts: the Master refuses the whole and lists what else it finds, and `merged` puts our
own words in place of its complaint about BROKEN.

Up to JOBS_INLINE_MAX jobs travel as one JSON document. More, or larger ones, travel as lines, each encoded when it
is sent, so a DAG of 100,000 jobs needs no more memory than its TitanJob objects.
"""

from __future__ import annotations

import os

from titan_sdk.errors import FileMissing, Invalid
from titan_sdk.job import GENERAL, TitanJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    Problems = list[dict[str, str]]

JOBS_INLINE_MAX = 1_000
BLOB_INLINE_BYTES_MAX = 64 * 1024
BLOBS_INLINE_BYTES_MAX = 6 * 1024 * 1024
DOCUMENT_BYTES_MAX = 4 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
BROKEN: list[dict[str, str]] = [{}]
JSON = "application/json"
NDJSON = "application/x-ndjson"

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DEFAULTS = vars(TitanJob("", ""))
_IN_OTHER_FORM = {"job_id", "filename", "script_content", "args", "parents", "requirement", "delay", "env"}
_AS_THEY_ARE = {field: value for field, value in _DEFAULTS.items() if field not in _IN_OTHER_FORM}


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
                raise Invalid(f"jobs[{index}] is a {type(job).__name__}: give TitanJob objects")
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
        self._header = self._encode_header({**header, "blobs": self.scripts.inline})
        digest.update(self._header)
        self.digest = digest.digest()
        self._document = b"" if self.streamed else self._header[:-1] + b',"jobs":[' + b",".join(lines) + b"]}"

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
            hint=error.hint if error else "",
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
        pending = [self._header]
        size = len(self._header)
        for line in self._lines([]):
            pending.append(line)
            size += len(line) + 1
            if size >= CHUNK_BYTES:
                yield b"\n".join(pending) + b"\n"
                pending, size = [], 0
        if pending:
            yield b"\n".join(pending) + b"\n"

    def _with_place(self, problem: dict[str, str]) -> dict[str, str]:
        looked = self.scripts.missing.get(problem.get("job_id", ""))
        if problem.get("code") != "file_not_found" or looked is None:
            return problem
        return {**problem, "message": f"{problem.get('message', '')} (on this disk it was looked for at {looked})"}


class Scripts:
    """The contents a submission needs, once per hash: small ones to send along, large ones to PUT first.

    `inline` maps SHA-256 to base64, `large` SHA-256 to the content or the path that holds it, `missing` a job's id
    to the absolute path where its file was looked for.
    """

    def __init__(self) -> None:
        self.inline: dict[str, str] = {}
        self.large: dict[str, bytes | str] = {}
        self.missing: dict[str, str] = {}
        self._inline_bytes = 0
        self._by_path: dict[str, str | None] = {}

    def of_content(self, content: bytes) -> str:
        """Keep `content` for sending; return its SHA-256."""
        from hashlib import sha256

        digest = sha256(content).hexdigest()
        if digest not in self.inline and digest not in self.large:
            room = self._inline_bytes + len(content) <= BLOBS_INLINE_BYTES_MAX
            if len(content) <= BLOB_INLINE_BYTES_MAX and room:
                from base64 import b64encode

                self.inline[digest] = b64encode(content).decode()
                self._inline_bytes += len(content)
            else:
                self.large[digest] = content
        return digest

    def of_file(self, path: str) -> str | None:
        """Return the SHA-256 of the regular file `path`, read at the first call; None when there is none.

        Raises OSError when it is there and cannot be read.
        """
        if path not in self._by_path:
            self._by_path[path] = self._read(path) if os.path.lexists(path) else None
        return self._by_path[path]

    def _read(self, path: str) -> str:
        import stat

        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is not a regular file")
        with open(path, "rb") as file:
            content = file.read(BLOB_INLINE_BYTES_MAX + 1)
            if len(content) <= BLOB_INLINE_BYTES_MAX:
                return self.of_content(content)
        digest = _hash_file(path)
        self.large[digest] = path
        return digest


def _hash_file(path: str) -> str:
    from hashlib import sha256

    digest = sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES * 4):
            digest.update(chunk)
    return digest.hexdigest()


def _encoder() -> Callable[[Any], str]:
    import json

    return json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=True).encode


def _job_document(job: TitanJob, scripts: Scripts, problems: Problems) -> dict[str, Any]:
    """Return the JSON form of `job`, defaults left out; append what this side finds wrong."""
    document: dict[str, Any] = {"job_id": job.job_id}
    _add_script(document, job, scripts, problems)
    for field, default in _AS_THEY_ARE.items():
        value = getattr(job, field)
        if value is not default and value != default:
            document[field] = value
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


def _add_script(document: dict[str, Any], job: TitanJob, scripts: Scripts, problems: Problems) -> None:
    name: Any = job.filename
    if hasattr(name, "__fspath__"):
        name = os.fspath(name)
    document["filename"] = name
    if job.script_content is not None:
        document["script"] = _content(job, scripts, problems)
        return
    if not isinstance(name, str) or not name or "\0" in name:
        return  # the Master says what is wrong with it
    document["filename"] = _lasting_name(name)
    path = os.path.abspath(name)
    try:
        digest = scripts.of_file(path)
    except OSError as error:
        why = error.strerror or str(error)
        problems.append(_problem(job, "script", f"{name} cannot be read: {why}"))
        document["script"] = BROKEN
        return
    if digest is None:
        scripts.missing[str(job.job_id)] = path
        return
    document["script"] = digest
    if "TITAN_JOB_ID" not in os.environ:
        document["source_path"] = path


def _content(job: TitanJob, scripts: Scripts, problems: Problems) -> Any:
    content: Any = job.script_content
    try:
        data = content.encode() if isinstance(content, str) else bytes(memoryview(content))
    except (TypeError, UnicodeError) as error:
        problems.append(_problem(job, "script", f"script_content is neither text nor bytes: {error}"))
        return BROKEN
    return scripts.of_content(data)


def _lasting_name(name: str) -> str:
    """Return `name` without the attempt's private folder, so that the next attempt submits the same bytes."""
    folder = os.environ.get("TITAN_WORKDIR")
    if folder and os.path.isabs(name):
        for root in (folder, os.path.realpath(folder)):
            if name.startswith(root + os.sep):
                return name[len(root) + 1 :]
    return name


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
        message = f"{field} holds {wrong!r}, a {type(wrong).__name__}: give text"
    else:
        message = f"{field} is {value!r}, a {type(value).__name__}: give a list of texts"
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
            why = "it holds a lone surrogate, which is not text" if isinstance(error, UnicodeError) else str(error)
            message = f"{field} cannot be sent: {why}"
            problems.append({"code": "invalid", "message": message, "job_id": ascii(job_id)[1:-1], "field": field})
            mended[field] = BROKEN
        else:
            mended[field] = value
    return mended


def _problem(job: TitanJob, field: str, message: str) -> dict[str, str]:
    return {"code": "invalid", "message": message, "job_id": str(job.job_id), "field": field}
