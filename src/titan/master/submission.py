"""What a submission's body says: received, decoded in slices, and checked until every problem is known.

Nothing here touches the database or the scheduler. A body is one JSON document, or NDJSON for large runs:
a header line, then a job a line, decoded while it arrives. `body_hash` covers every byte received, so that
an idempotency key can tell a resend from a reuse. The document or one line is decoded in one go, so it is short.
"""

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from titan.core.graph import check_graph
from titan.master.asgi import Receive, Scope
from titan.master.bodies import JSON, NDJSON, chunks, decode, depth_message, is_deeper_value, require_type
from titan.master.problems import invalid, too_large
from titan.master.turns import Turns
from titan.model.ids import SHA256_PATTERN, name_problem, shown
from titan.model.limits import JSON_LIMIT, Limits, body_limit, change
from titan.model.requests import ExtendBody, ExtendHeader, SubmitBody, SubmitHeader
from titan.model.spec import JobSpec, Problem, read_job
from titan_sdk.errors import Invalid, TitanError

PROBLEMS_KEPT_MAX = 1_000
FORGOTTEN_AT_ONCE = 2_000
_SUBMIT = msgspec.json.Decoder(SubmitBody)
_HEADER = msgspec.json.Decoder(SubmitHeader)
_EXTEND = msgspec.json.Decoder(ExtendBody)
_EXTEND_HEADER = msgspec.json.Decoder(ExtendHeader)
_EXTENSION = "the extension"
_ANY = msgspec.json.Decoder()


class Submission(msgspec.Struct):
    """A submission as received. `jobs` hold only those without a problem of their own.

    `problems` is everything found so far. `refused` are the jobs left out, with as much of their id, parents and
    file without content ("" for none) as could be read.
    """

    name: str
    agent_run_id: str | None
    jobs: list[JobSpec]
    blobs: dict[str, bytes]
    problems: list[Problem]
    body_hash: bytes
    refused: list[JobSpec]

    def add(self, problem: Problem) -> None:
        """Note one more problem; what is over 1,000 of them is not kept."""
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)

    def refuse(self) -> None:
        """Raise the one error that lists all problems, if there is one."""
        if self.problems:
            raise invalid(self.problems, f"{self.name!a} was not accepted")

    async def forget(self, turns: Turns) -> None:
        """Free the jobs in slices: at once, 100,000 of them would hold everybody else."""
        while self.jobs:
            del self.jobs[-FORGOTTEN_AT_ONCE:]
            await turns.give()


class Receiver:
    """Receives one submission. `turns` are shared with the rest of the request's work."""

    def __init__(self, scope: Scope, receive: Receive, limits: Limits, turns: Turns) -> None:
        self.limits = limits
        self.turns = turns
        self.problems: list[Problem] = []
        self.refused: list[JobSpec] = []
        self.hash = hashlib.sha256()
        self._scope = scope
        variable = body_limit("runs.submit")
        self._chunks = chunks(scope, receive, getattr(limits, variable), variable)

    async def run(self) -> Submission:
        """Return a whole new run. Raises for a body that is no submission at all; its problems are listed otherwise."""
        if require_type(self._scope, JSON, NDJSON) == NDJSON:
            return await self._lines(extends=False)
        body = decode(_SUBMIT, await self._document(), self.limits)
        if len(body.jobs) > self.limits.submit_jobs_inline_max:
            text = f"{len(body.jobs)} jobs in one JSON document: at most {self.limits.submit_jobs_inline_max}"
            raise Invalid(text, code="too_large", hint=f"{_SEND_LINES}; {change('submit_jobs_inline_max')}")
        jobs = await self._jobs(body.jobs)
        self._check_names(body.name, body.agent_run_id)
        blobs = await self._blobs(body.blobs)
        return self._submission(body.name, body.agent_run_id, jobs, blobs)

    async def extension(self) -> Submission:
        """Return jobs to be added to a run."""
        if require_type(self._scope, JSON, NDJSON) == NDJSON:
            return await self._lines(extends=True)
        body = decode(_EXTEND, await self._document(), self.limits)
        jobs = await self._jobs(body.jobs)
        return self._submission(_EXTENSION, None, jobs, await self._blobs(body.blobs))

    def _submission(
        self, name: str, agent_run_id: str | None, jobs: list[JobSpec], blobs: dict[str, bytes]
    ) -> Submission:
        return Submission(name, agent_run_id, jobs, blobs, self.problems, self.hash.digest(), self.refused)

    async def _document(self) -> bytes:
        limit: int = getattr(self.limits, JSON_LIMIT)
        body = bytearray()
        async for chunk in self._chunks:
            self.hash.update(chunk)
            body += chunk
            if len(body) > limit:
                raise too_large("one JSON document", limit, JSON_LIMIT, _SEND_LINES)
            await self.turns.give()
        return bytes(body)

    async def _lines(self, *, extends: bool) -> Submission:
        lines = self._split()
        first = await anext(lines, b"")
        header: SubmitHeader | ExtendHeader
        if extends:
            header = decode(_EXTEND_HEADER, first, self.limits, "the first line")
        else:
            header = decode(_HEADER, first, self.limits, "the first line")
        if not 0 <= header.jobs <= self.limits.dag_jobs_max:
            raise too_many_jobs(header.jobs, self.limits)
        name, agent_run_id = _EXTENSION, None
        if isinstance(header, SubmitHeader):
            name, agent_run_id = header.name, header.agent_run_id
            self._check_names(name, agent_run_id)
        blobs = await self._blobs(header.blobs)
        jobs: list[JobSpec] = []
        number, arrived = 1, 0
        async for line in lines:
            number += 1
            where = f"line {number}"
            raw = decode(_ANY, line, self.limits, where)
            await self.turns.give()
            if isinstance(raw, dict) and raw.keys() == {"blobs"}:
                blobs |= await self._blobs(_texts(raw["blobs"], where))
                continue
            arrived += 1
            if arrived > header.jobs:
                raise Invalid(
                    f"there are more lines than the {header.jobs} jobs that the first line announced: announce them all"
                )
            self._add_job(raw, where, jobs)
            await self.turns.give()
        if arrived != header.jobs:
            raise Invalid(f"{arrived} jobs arrived of the {header.jobs} that the first line announced: send it again")
        return self._submission(name, agent_run_id, jobs, blobs)

    async def _split(self) -> AsyncIterator[bytes]:
        """Yield the lines of the body that are not blank."""
        limit: int = getattr(self.limits, JSON_LIMIT)
        rest = bytearray()
        async for chunk in self._chunks:
            self.hash.update(chunk)
            *whole, last = chunk.split(b"\n")
            for part in whole:
                line = bytes(rest) + part if rest else part
                rest.clear()
                if len(line) > limit:
                    raise _long_line(limit)
                if line.strip():
                    yield line
            rest += last
            if len(rest) > limit:
                raise _long_line(limit)
        if rest.strip():
            yield bytes(rest)

    async def _jobs(self, raw_jobs: list[object]) -> list[JobSpec]:
        jobs: list[JobSpec] = []
        for place, raw in enumerate(raw_jobs, start=1):
            self._add_job(raw, f"job {place}", jobs)
            await self.turns.give()
        return jobs

    def _add_job(self, raw: object, where: str, jobs: list[JobSpec]) -> None:
        found: list[Problem] = []
        spec = read_job(raw, self.limits, found)
        if spec is not None:
            jobs.append(spec)
            return
        if isinstance(raw, dict) and isinstance(raw.get("job_id"), str):
            self.refused.append(_remains(raw, {problem.field for problem in found}))
        if is_deeper_value(raw, self.limits.json_depth_max - 2):
            self._add(Problem("too_large", f"{where}: {depth_message(self.limits)}"))
        for problem in found:
            self._add(
                problem if problem.job_id else msgspec.structs.replace(problem, message=f"{where}: {problem.message}")
            )

    def _add(self, problem: Problem) -> None:
        if len(self.problems) < PROBLEMS_KEPT_MAX:
            self.problems.append(problem)

    def _check_names(self, name: str, agent_run_id: str | None) -> None:
        texts = [("name", "DAG name", name), ("agent_run_id", "agent_run_id", agent_run_id)]
        for field, what, text in texts:
            most = self.limits.dag_name_chars_max
            message = None if text is None else name_problem(text, most, what)
            if message and text and len(text) > most:
                message += f" ({change('dag_name_chars_max')})"
            if message:
                self._add(Problem("invalid", message, field=field))

    async def _blobs(self, sent: dict[str, str]) -> dict[str, bytes]:
        blobs: dict[str, bytes] = {}
        for sha256, text in sent.items():
            message, code, data = _blob(sha256, text, self.limits)
            if message:
                self._add(Problem(code, message, field="blobs"))
            else:
                blobs[sha256] = data
            await self.turns.give()
        return blobs


_OF_THE_HEADER = frozenset({"name", "agent_run_id", "blobs"})
_SEND_LINES = "send large runs as application/x-ndjson and PUT large files to /api/v1/blobs first"


async def check_as_graph(submission: Submission, existing: set[str], limits: Limits, turns: Turns) -> None:
    """Add the problems of the graph to those of its jobs. Jobs that were refused are part of it."""
    jobs = [*submission.jobs, *submission.refused] if submission.refused else submission.jobs
    if jobs or all(problem.field in _OF_THE_HEADER for problem in submission.problems):
        for problem in await turns.through(check_graph(jobs, existing, limits)):
            submission.add(problem)


def too_many_jobs(count: int, limits: Limits) -> Invalid:
    """Return the refusal for a header that announces too many jobs."""
    hint = change("dag_jobs_max")
    return Invalid(
        f"the first line announces {count} jobs: give 0 to {limits.dag_jobs_max}", code="too_large", hint=hint
    )


def _long_line(limit: int) -> TitanError:
    return too_large("one line", limit, JSON_LIMIT, "give files lines of their own, or PUT them to /api/v1/blobs first")


def _texts(sent: object, where: str) -> dict[str, str]:
    if not isinstance(sent, dict) or not all(isinstance(text, str) for text in sent.values()):
        raise Invalid(f"{where}: blobs is no object of texts: give SHA-256 and base64 of each content")
    return sent


def _remains(raw: dict[str, Any], bad_fields: set[str]) -> JobSpec:
    """Return what the graph and the search for files need of a job that was refused."""
    parents = raw.get("parents", ())
    sent = raw.get("script") or "filename" in bad_fields
    known = isinstance(parents, list) and all(isinstance(parent, str) for parent in parents)
    return JobSpec(raw["job_id"], "" if sent else raw["filename"], parents=tuple(parents) if known else ())


def _blob(sha256: str, text: str, limits: Limits) -> tuple[str, str, bytes]:
    """Return (message, code, b"") for a blob that cannot be taken, ("", "", content) otherwise."""
    limit = limits.blob_inline_bytes_max
    if not SHA256_PATTERN.fullmatch(sha256):
        return f"blob {shown(sha256)} is not a SHA-256: give 64 hex digits in lower case", "invalid", b""
    put = f"PUT it to /api/v1/blobs/{sha256} first ({change('blob_inline_bytes_max')})"
    too_big = f"blob {sha256[:12]} is over {limit} bytes: {put}"
    if len(text) * 3 // 4 > limit + 2:
        return too_big, "too_large", b""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"blob {sha256[:12]} is not base64: send the content as base64", "invalid", b""
    if len(data) > limit:
        return too_big, "too_large", b""
    if hashlib.sha256(data).hexdigest() != sha256:
        return (
            f"blob {sha256[:12]} has other content than its hash says: send it again, or correct the hash",
            "invalid",
            b"",
        )
    return "", "", data
