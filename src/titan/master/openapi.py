"""The OpenAPI document, drawn from the routes themselves: what is served is what is described."""

import functools
import inspect
import typing
from typing import Any

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.routes import HTTPRoute

from titan import __version__
from titan.master.api import feeds, store
from titan.master.api.site import Http, site_of
from titan.master.problems import MEDIA_TYPE
from titan.master.roles import ALLOWED
from titan.model.limits import JSON_LIMIT, Limits, body_limit
from titan.model.views import ProblemDocument

REF = "#/components/schemas/{name}"
_QUERY_NONE = {"request", "self", "return"}


@get("/openapi.json", name="openapi")
async def describe(request: Http) -> Response[bytes]:
    """Return this document."""
    limits = site_of(request.scope).engine.limits
    return Response(msgspec.json.encode(document(request.app, limits)), media_type="application/json")


@functools.lru_cache(maxsize=1)
def document(app: Litestar, limits: Limits) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of every HTTP route of `app` and of the store's, with what bounds each body."""
    types: dict[str, type] = {"ProblemDocument": ProblemDocument}
    paths: dict[str, dict[str, Any]] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                if handler.name in ALLOWED:
                    operation = _operation(handler, route.path_format, types)
                    for method in handler.http_methods:
                        paths.setdefault(route.path_format, {})[str(method).lower()] = operation
    for name, (body, answer) in store.SHAPES.items():
        path = f"/api/v1/store/{name.removeprefix('store.')}"
        paths[path] = {
            "post": _base(name, inspect.getdoc(body) or "", _body(body, types), {"200": _json(answer, types)})
        }
    for methods in paths.values():
        for operation in methods.values():
            if "requestBody" in operation:
                operation["requestBody"] |= _bound(operation["operationId"], limits)
    _, schemas = msgspec.json.schema_components(types.values(), ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Titan", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(handler: HTTPRouteHandler, path: str, types: dict[str, type]) -> dict[str, Any]:
    function = typing.cast(Any, handler.fn)
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = [
        _parameter(name, hints[name], parameter.default, f"{{{name}}}" in path)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _QUERY_NONE
    ]
    body: dict[str, Any] = {}
    if "body" in handler.opt:
        body = _body(handler.opt["body"], types)
        if header := handler.opt.get("lines"):
            types[header.__name__] = header
            body["content"]["application/x-ndjson"] = {"schema": {"$ref": REF.format(name=header.__name__)}}
    elif handler.opt.get("raw"):
        body = {"content": {"application/octet-stream": {}}}
    statuses = handler.opt.get("status", (handler.status_code,))
    answers = {str(status): _answer(hints["return"], types) for status in statuses}
    operation = _base(str(handler.name), inspect.getdoc(function) or "", body, answers)
    if parameters:
        operation["parameters"] = parameters
    return operation


def _base(name: str, text: str, body: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": REF.format(name="ProblemDocument")}}}}
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": text.partition("\n")[0],
        "description": text,
        "tags": [name.partition(".")[0]],
        "x-roles": sorted(ALLOWED[name]),
        "responses": {**answers, "default": {"description": "the problem, said with its code", **problem}},
    }
    if body:
        operation["requestBody"] = body
    if name == "health":
        operation["security"] = []
    return operation


def _parameter(name: str, kind: Any, default: Any, in_path: bool) -> dict[str, Any]:
    required = in_path or default is inspect.Parameter.empty
    for extra in typing.get_args(kind)[1:]:
        if isinstance(extra, ParameterKwarg):
            kind, name = typing.get_args(kind)[0], extra.name or name
    schema = msgspec.json.schema(kind)
    if not required:
        schema = {**schema, "default": default}
    return {"name": name, "in": "path" if in_path else "query", "required": required, "schema": schema}


def _answer(kind: Any, types: dict[str, type]) -> dict[str, Any]:
    if kind is type(None):
        return {"description": "done"}
    if kind is feeds.Feed:
        return {"description": "server-sent events", "content": {"text/event-stream": {}}}
    if typing.get_origin(kind) is Response:
        (kind,) = typing.get_args(kind)
    if kind is bytes:
        return {"description": "raw bytes", "content": {"application/octet-stream": {}}}
    return _json(kind, types)


def _body(kind: type, types: dict[str, type]) -> dict[str, Any]:
    types[kind.__name__] = kind
    return {"required": True, "content": {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}}


def _bound(route: str, limits: Limits) -> dict[str, Any]:
    """Return what the document says of the size of a body: the limit's name, and how many bytes it allows here."""
    name = body_limit(route)
    size = getattr(limits, name)
    text = f"at most {size} bytes ({name})"
    if route in ("runs.submit", "runs.extend"):
        text += f", of which one JSON document or line has at most {getattr(limits, JSON_LIMIT)} ({JSON_LIMIT})"
    return {"description": text, "x-limit": name, "x-bytes-max": size}


def _json(kind: type, types: dict[str, type]) -> dict[str, Any]:
    types[kind.__name__] = kind
    schema = {"$ref": REF.format(name=kind.__name__)}
    return {"description": inspect.getdoc(kind) or "", "content": {"application/json": {"schema": schema}}}
