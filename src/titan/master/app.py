"""The application: every route, behind the gate."""

import time
from collections.abc import Collection

from litestar import Litestar, Router

from titan import __version__
from titan.master.api import artifacts, audit, blobs, feeds, jobs, joining, link, registry, runs, store, tokens, watch
from titan.master.api.site import Place, Site
from titan.master.artifacts import Artifacts
from titan.master.asgi import Scope
from titan.master.auth import FastRoute, Gate, Keys, RoleCheck
from titan.master.engine import Engine
from titan.master.openapi import describe
from titan.master.origins import Origins
from titan.master.problems import respond
from titan.master.rates import Rates
from titan.storage.blobs import BlobFiles
from titan.storage.contents import ArtifactFiles
from titan.storage.logs import LogFiles

PREFIX = "/api/v1"


def fast(scope: Scope) -> FastRoute | None:
    """Return the route that serves a request without the framework; None when it is the framework's."""
    return store.FAST.get(scope["path"]) or runs.fast(scope)


def build_app(
    engine: Engine,
    blob_files: BlobFiles,
    log_files: LogFiles,
    artifact_files: ArtifactFiles,
    admin_token: str,
    hosts: Collection[str] = (),
    place: Place = Place(),  # noqa: B008 - it is frozen
) -> Gate:
    """Return the ASGI application of one Master. `hosts` are the names it answers to beside localhost and addresses."""
    handlers = [
        handler
        for noun in (runs, jobs, blobs, registry, artifacts, feeds, watch, joining, link, tokens, audit)
        for handler in noun.HANDLERS
    ]
    app = Litestar(
        [Router(PREFIX, route_handlers=[*handlers, describe])],
        middleware=[RoleCheck],
        exception_handlers={Exception: respond},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
        debug=False,
    )
    transfers = Artifacts(engine, artifact_files)
    started_ms, rates = time.time_ns() // 1_000_000, Rates(engine.limits)
    site = Site(engine, blob_files, log_files, transfers, __version__, started_ms, engine.sessions, rates, place)
    keys = Keys(admin_token, engine.book, engine)
    return Gate(app, keys, Origins(hosts), engine.sessions, fast, site, engine.limits)
