"""Artifacts: files published under a key, in versions; the newest is what the key means."""

from urllib.parse import quote

from litestar import Response, delete, get, put
from litestar.params import FromQuery

from titan.master.api.site import Http, idempotency_key, page_rows, principal_of, site_of, trail
from titan.master.artifacts import Content, Operations
from titan.master.operations import done, key_for
from titan.model.artifacts import ArtifactRow
from titan.model.ids import SHA256_PATTERN, name_problem, shown
from titan.model.limits import Limits, change
from titan.model.store import DeleteArtifact, PublishArtifact
from titan.model.views import ArtifactList, ArtifactsDeleted, ArtifactView, iso_time
from titan.storage import artifacts
from titan_sdk.errors import Invalid, NotFound

NAME_CHARS_MAX = 255
VERSION_MAX = 2**53


@put("/artifacts", name="artifacts.put", status_code=200, opt={"raw": True})
async def publish(
    request: Http, key: FromQuery[str], name: FromQuery[str], sha256: FromQuery[str | None] = None
) -> ArtifactView:
    """Publish the body, which was a file called `name`, as the newest version of an artifact.

    With `sha256` a body of another hash is refused. When there are too many versions the oldest goes. What a job
    publishes counts only if its attempt still lives when all of it has arrived.
    """
    site = site_of(request.scope)
    engine = site.engine
    _checked(key, engine.limits)
    _checked_name(name)
    if sha256 is not None and not SHA256_PATTERN.fullmatch(sha256):
        raise Invalid(f"{shown(sha256, 80)} is not a SHA-256: give 64 hex digits in lower case")
    header = idempotency_key(request.scope)
    who = principal_of(request)
    now_ms = engine.clock().wall_ms

    def operation(content: Content) -> Operations:
        body = f"artifacts.put {key}\0{name}\0{content.sha256}".encode()
        publication = PublishArtifact(
            key=key,
            name=name,
            sha256=content.sha256,
            size=content.size,
            data=content.data,
            now_ms=now_ms,
            created_by=who.actor,
            run_id=who.run_id,
            job_id=who.job_id,
            attempt=who.attempt,
            fence=who.fence,
            idempotency=key_for(header, body, now_ms),
        )
        return publication, *trail(request, f"{key} {content.sha256}", if_done=True)

    made, result = await site.artifacts.publish(request.scope, request.receive, sha256, operation)
    version = int(done(result)[0])
    row = await engine.read(lambda connection: artifacts.find(connection, key, version))
    return _view(row or _row(made, version))  # it may be gone since


@get("/artifacts", name="artifacts.list")
async def list_artifacts(
    request: Http, prefix: FromQuery[str] = "", limit: FromQuery[int] = 100, after: FromQuery[str | None] = None
) -> ArtifactList:
    """List the newest version of each artifact whose key begins with a prefix, sorted by key."""
    engine = site_of(request.scope).engine
    rows = page_rows(limit, engine.limits)
    page = await engine.read(lambda connection: artifacts.page(connection, prefix, rows, after))
    return ArtifactList([_view(row) for row in page.rows], page.next)


@get("/artifacts/versions", name="artifacts.versions")
async def list_versions(request: Http, key: FromQuery[str]) -> ArtifactList:
    """List the versions that are kept of one artifact, the newest first."""
    engine = site_of(request.scope).engine
    rows = await engine.read(lambda connection: artifacts.versions(connection, key))
    if not rows:
        raise _unknown(f"there is no artifact {shown(key)}")
    return ArtifactList([_view(row) for row in rows], None)


@get("/artifacts/content", name="artifacts.get")
async def download(
    request: Http,
    key: FromQuery[str | None] = None,
    name: FromQuery[str | None] = None,
    version: FromQuery[int] = 0,
    offset: FromQuery[int] = 0,
) -> Response[bytes]:
    """Return the content of an artifact from `offset` on: of its newest version, or the one asked for.

    `name` instead of `key`: of what was published last from a file of that name. Headers: Titan-Artifact-Key
    (percent-encoded), Titan-Artifact-Version, Titan-Artifact-Size and Titan-Artifact-Sha256, of the whole.
    """
    if (key is None) == (name is None):
        raise Invalid("give either key= or name=")
    row = await _found_named(request, name) if key is None else await _found(request, key, version)
    if not 0 <= offset <= row.size:
        raise Invalid(f"offset is {offset}: give 0 to {row.size}, the size")
    headers = {
        "content-type": "application/octet-stream",
        "content-security-policy": "sandbox",
        "content-length": str(row.size - offset),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(row.name, safe='')}",
        "titan-artifact-key": quote(row.key, safe=""),
        "titan-artifact-version": str(row.version),
        "titan-artifact-size": str(row.size),
        "titan-artifact-sha256": row.sha256,
    }
    return site_of(request.scope).artifacts.download(row.sha256, row.size, offset, headers)


@delete("/artifacts", name="artifacts.delete", status_code=200)
async def delete_artifact(request: Http, key: FromQuery[str], version: FromQuery[int] = 0) -> ArtifactsDeleted:
    """Delete one version of an artifact, or all. A content goes with the last artifact that has it."""
    site = site_of(request.scope)
    now_ms = site.engine.clock().wall_ms
    once = key_for(idempotency_key(request.scope), f"artifacts.delete {version} {key}".encode(), now_ms)
    await _found(request, key, version)
    result = done(await site.artifacts.delete(DeleteArtifact(key, version, now_ms, once), *trail(request, key)))
    return ArtifactsDeleted(int(result[0]))


async def _found(request: Http, key: str, version: int) -> ArtifactRow:
    engine = site_of(request.scope).engine
    if not 0 <= version <= VERSION_MAX:
        raise _no_version(key, version)
    row = await engine.read(lambda connection: artifacts.find(connection, key, version))
    if row is None:
        raise _no_version(key, version) if version else _unknown(f"there is no artifact {shown(key)}")
    return row


async def _found_named(request: Http, name: str | None) -> ArtifactRow:
    engine = site_of(request.scope).engine
    row = await engine.read(lambda connection: artifacts.find_named(connection, name or ""))
    if row is None:
        raise _unknown(f"no artifact was published from a file {shown(name or '')}")
    return row


def _unknown(message: str) -> NotFound:
    return NotFound(message, hint="titan artifacts ls shows the keys")


def _no_version(key: str, version: int) -> NotFound:
    return NotFound(
        f"there is no version {version} of an artifact {shown(key)}",
        hint="titan artifacts ls KEY --versions shows those that are kept",
    )


def _checked(key: str, limits: Limits) -> None:
    problem = name_problem(key, limits.artifact_key_chars_max, "artifact key")
    if problem:
        too_long = len(key) > limits.artifact_key_chars_max
        raise Invalid(problem, hint=change("artifact_key_chars_max") if too_long else "")


def _checked_name(name: str) -> None:
    problem = name_problem(name, NAME_CHARS_MAX, "file name")
    if problem is None and (name in (".", "..") or "/" in name or "\\" in name):
        problem = f"file name {shown(name)} is no name of a file alone: leave the folders out"
    if problem:
        raise Invalid(problem)


def _row(made: PublishArtifact, version: int) -> ArtifactRow:
    return ArtifactRow(
        key=made.key,
        version=version,
        name=made.name,
        sha256=made.sha256,
        size=made.size,
        created_ms=made.now_ms,
        created_by=made.created_by,
        run_id=made.run_id,
        job_id=made.job_id,
        attempt=made.attempt,
    )


def _view(row: ArtifactRow) -> ArtifactView:
    return ArtifactView(
        key=row.key,
        version=row.version,
        name=row.name,
        sha256=row.sha256,
        size=row.size,
        created_at=iso_time(row.created_ms),
        created_by=row.created_by,
        run_id=row.run_id or None,
        job_id=row.job_id or None,
        attempt=row.attempt or None,
    )


HANDLERS = [publish, list_artifacts, list_versions, download, delete_artifact]
