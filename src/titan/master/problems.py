"""Errors on their way out: every exception becomes one problem+json document, and only our own words leave.

An exception nobody foresaw is a fault of Titan: the caller gets a request id, the log gets the traceback.
"""

import itertools
import logging
import re
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from titan.master.asgi import Scope, Send
from titan.model.ids import shown
from titan.model.limits import change
from titan.model.spec import Problem
from titan.model.wording import reworded
from titan.storage.errors import ReadTimedOut
from titan_sdk.errors import Internal, Invalid, NotFound, TitanError, Unavailable, error_of, to_problem

MEDIA_TYPE = "application/problem+json"
PROBLEMS_SENT_MAX = 100
_DESCRIBED = "GET /api/v1/openapi.json describes what each route takes"
_NO_PARAMETER = re.compile(r"Missing required query parameter '(\w+)'")
LOG = logging.getLogger("titan.master")

_process = secrets.token_hex(4)
_count = itertools.count(1)


class ClientGone(Exception):
    """The caller hung up in the middle of its request: there is nobody to answer."""


class HttpError(TitanError):
    """An error of HTTP itself, with a status that no code of the tree has (405, 415, 421, 429)."""

    code = "invalid"

    def __init__(
        self, status: int, message: str, *, code: str = "invalid", hint: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint, retry_after_s=retry_after_s)
        self.http_status = status

    @property
    def status(self) -> int:
        """The HTTP status of this one error."""
        return self.http_status


def new_request_id() -> str:
    """Return an id that names one request in our log: random for the process, then counted."""
    return f"{_process}-{next(_count)}"


def invalid(problems: Sequence[Problem], what: str) -> TitanError:
    """Return the one error that lists all `problems` (at most 100 are sent).

    A missing file anywhere makes it `file_not_found`, which callers may catch as FileNotFoundError; otherwise
    it has the code that all problems share, or `invalid`.
    """
    codes = {problem.code for problem in problems}
    shared = next(iter(codes)) if len(codes) == 1 else "invalid"
    code = "file_not_found" if "file_not_found" in codes else shared
    first = problems[0].message
    message = first if len(problems) == 1 else f"{what}: {len(problems)} problems, the first: {first}"
    return error_of(code, message, problems=[_listed(problem) for problem in problems[:PROBLEMS_SENT_MAX]])


def too_large(what: str, limit: int, variable: str, hint: str = "") -> TitanError:
    """Return the error for a body or part over its limit; it says how to change the limit."""
    how = change(variable)
    text = f"{what} is over the limit of {limit} bytes"
    return error_of("too_large", text, hint=f"{hint}; {how}" if hint else how)


def translate(error: Exception, request_id: str, path: str = "", query: str = "") -> TitanError:
    """Return `error` as one of the tree. What is not ours is logged with its traceback and told as `internal`.

    `path` and `query` are those of the request as they were sent, for an error that speaks of them.
    """
    if isinstance(error, TitanError):
        ours = error
    elif isinstance(error, ClientGone):
        ours = Invalid("the caller hung up")
    elif isinstance(error, ReadTimedOut):
        ours = Unavailable("this read took too long and was cut", hint="ask for less at once", retry_after_s=1.0)
    elif isinstance(error, HTTPException) and error.status_code < 500:
        ours = _of_framework(error, path, query)
    else:
        ours = Internal("the Master failed on this request; nothing is known to be wrong with what you sent")
    ours.request_id = request_id
    if ours.status == 500:
        LOG.error("request %s failed", request_id, exc_info=error)
    return ours


def encode(error: TitanError) -> tuple[int, dict[str, str], bytes]:
    """Return status, extra headers and the document of `error`."""
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    document = to_problem(error)
    if isinstance(error, HttpError):
        document["title"] = HTTPStatus(error.status).phrase
    return error.status, headers, msgspec.json.encode(document)


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a request whose handler raised: the framework's one exception handler."""
    path, query = (request.scope[part].decode("latin-1") for part in ("raw_path", "query_string"))
    ours = translate(error, request_id_of(request.scope), path, query)
    status, headers, body = encode(ours)
    if isinstance(error, HTTPException) and error.headers and "allow" in error.headers:
        headers["allow"] = _allowed(error)
    return Response(content=body, status_code=status, headers=headers, media_type=MEDIA_TYPE)


async def send_problem(send: Send, error: TitanError, more: Mapping[str, str] | None = None) -> None:
    """Answer below the framework: for whoever speaks plain ASGI."""
    status, headers, body = encode(error)
    headers |= {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **(more or {})}
    pairs = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def request_id_of(scope: Scope) -> str:
    """Return the id of the request, drawing it when this is the first time somebody needs it."""
    state = scope["state"]
    if "request_id" not in state:
        state["request_id"] = new_request_id()
    return str(state["request_id"])


def _of_framework(error: HTTPException, path: str, query: str) -> TitanError:
    if error.status_code == 404 and "%2f" in path.lower():
        hint = "a run and its job together are looked up: GET /api/v1/jobs/lookup?id=RUN/JOB"
        return NotFound(f"{shown(path)} names nothing: no id and no name has a '/' in it", hint=hint)
    if error.status_code == 404:
        return NotFound(f"there is no route {shown(path)}", hint="GET /api/v1/openapi.json lists them all")
    if error.status_code == 405:
        return HttpError(405, f"this route does not have that method: use {_allowed(error)}")
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        problems = [_of_parameter(part, query) for part in error.extra if isinstance(part, dict)]
        if problems:
            return invalid(problems, "the request cannot be accepted")
    detail = error.detail or "the request cannot be accepted"
    if found := _NO_PARAMETER.match(detail):
        return Invalid(f"the query lacks {found[1]}: give it as ?{found[1]}=...", hint=_DESCRIBED)
    return Invalid(detail, hint=_DESCRIBED)


def _allowed(error: HTTPException) -> str:
    """Return the methods of a route; OPTIONS, which the framework adds, is nobody's."""
    named = (error.headers or {}).get("allow", "").split(", ")
    return ", ".join(sorted(set(named) - {"OPTIONS"}))


def _of_parameter(part: Mapping[str, Any], query: str) -> Problem:
    key, message = str(part.get("key", "")), str(part.get("message", "not acceptable"))
    sent = parse_qs(query, keep_blank_values=True).get(key, [])
    return Problem(code="invalid", message=reworded(message, key, shown(sent[-1]) if sent else ""), field=key)


def _listed(problem: Problem) -> dict[str, str]:
    fields = {"code": problem.code, "message": problem.message, "job_id": problem.job_id, "field": problem.field}
    return {name: value for name, value in fields.items() if value}
