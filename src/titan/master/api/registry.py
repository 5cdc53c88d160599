"""The registry: files under flat names, newest wins, for submissions that name a file without sending it."""

from litestar import get, put
from litestar.params import FromPath, FromQuery

from titan.master.api.site import Http, idempotency_key, site_of, trail
from titan.master.operations import done, key_for
from titan.master.uploads import receive_blob
from titan.model.ids import SHA256_PATTERN, job_id_problem, shown
from titan.model.store import RegisterFile, UploadFile
from titan.model.views import RegistryEntry, iso_time
from titan.storage import queries
from titan_sdk.errors import Invalid, NotFound


@put("/registry/{name:str}", name="registry.put", status_code=200, opt={"raw": True})
async def put_file(request: Http, name: FromPath[str], sha256: FromQuery[str | None] = None) -> RegistryEntry:
    """Let a name mean the body, or, with ?sha256=, a content that is here already."""
    site = site_of(request.scope)
    engine = site.engine
    problem = job_id_problem(name, "file name")
    if problem:
        raise Invalid(problem)
    key = idempotency_key(request.scope)
    now_ms = engine.clock().wall_ms
    if sha256 is not None:
        if not SHA256_PATTERN.fullmatch(sha256):
            raise Invalid(f"{shown(sha256, 80)} is not a SHA-256: give 64 hex digits in lower case")
        once = key_for(key, f"registry.put {name} {sha256}".encode(), now_ms)
        told = trail(request, f"{name} {sha256}", if_done=True)
        done(await engine.mutate(RegisterFile(name, sha256, now_ms, once), *told))
    else:
        blob = await receive_blob(site.engine, site.blobs, request.scope, request.receive, None)
        once = key_for(key, f"registry.put {name} {blob.sha256}".encode(), now_ms)
        told = trail(request, f"{name} {blob.sha256}", if_done=True)
        done(await engine.mutate(UploadFile(name, blob, now_ms, once), *told))
    return await _entry(request, name)


@get("/registry/{name:str}", name="registry.get")
async def get_file(request: Http, name: FromPath[str]) -> RegistryEntry:
    """Say which content a name means now."""
    return await _entry(request, name)


async def _entry(request: Http, name: str) -> RegistryEntry:
    engine = site_of(request.scope).engine
    found = await engine.read(lambda connection: queries.registered(connection, name))
    if found is None:
        raise NotFound(f"the registry has no file {shown(name)}", hint="upload it with upload_file or deploy_script")
    return RegistryEntry(found.name, found.sha256, found.size, iso_time(found.updated_ms))


HANDLERS = [put_file, get_file]
