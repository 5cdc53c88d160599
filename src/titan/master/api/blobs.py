"""Contents by their hash: what a submission needs of files too large to ride in it, and what workers fetch."""

from litestar import Response, get, put
from litestar.params import FromPath

from titan.master.api.site import Http, site_of
from titan.master.uploads import receive_blob
from titan.model.ids import SHA256_PATTERN, shown
from titan_sdk.errors import Invalid, NotFound


@put("/blobs/{sha256:str}", name="blobs.put", status_code=204, opt={"raw": True})
async def put_blob(request: Http, sha256: FromPath[str]) -> None:
    """Keep the body, whose SHA-256 must be that of the path."""
    site = site_of(request.scope)
    blob = await receive_blob(site.engine, site.blobs, request.scope, request.receive, _checked(sha256))
    await site.engine.mutate(blob)


@get("/blobs/{sha256:str}", name="blobs.get")
async def get_blob(request: Http, sha256: FromPath[str]) -> Response[bytes]:
    """Return a content."""
    site = site_of(request.scope)
    sha256 = _checked(sha256)
    data = await site.engine.read(lambda connection: site.blobs.get(connection, sha256))
    if data is None:
        raise NotFound(f"there is no content with the SHA-256 {sha256}", hint="PUT it to the same address")
    return Response(data, media_type="application/octet-stream")


def _checked(sha256: str) -> str:
    if not SHA256_PATTERN.fullmatch(sha256):
        raise Invalid(f"{shown(sha256, 80)} is not a SHA-256: give 64 hex digits in lower case")
    return sha256


HANDLERS = [put_blob, get_blob]
