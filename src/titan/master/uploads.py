"""Large bodies on their way to disk: received on the loop, written and hashed on a thread, never whole in memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from titan.master.asgi import Receive, Scope
from titan.master.bodies import chunks
from titan.master.engine import Engine
from titan.model.limits import body_limit
from titan.model.store import UploadBlob
from titan.storage.blobs import BlobFiles
from titan_sdk.errors import Invalid, StorageFull

UPLOADS_AT_ONCE = 4
STALLED_S = 60.0
_threads = ThreadPoolExecutor(UPLOADS_AT_ONCE, thread_name_prefix="titan-upload")


async def receive_blob(
    engine: Engine, files: BlobFiles, scope: Scope, receive: Receive, sha256: str | None
) -> UploadBlob:
    """Take the body in and return the operation that makes it known.

    Raises Invalid when it does not hash to `sha256` (None: any content), `too_large`, or StorageFull.
    """
    variable = body_limit("blobs.put")
    body = chunks(scope, receive, getattr(engine.limits, variable), variable)
    loop = asyncio.get_running_loop()
    pulled = _pull(body, loop)
    now_ms = engine.clock().wall_ms
    try:
        return await loop.run_in_executor(_threads, files.save, pulled, now_ms, sha256)
    except TimeoutError:
        raise Invalid(f"nothing arrived for {STALLED_S:g} s: send it again") from None
    except ValueError:
        raise Invalid(f"the body does not have the SHA-256 {sha256}: send it again, or correct the hash") from None
    except OSError as error:
        why = error.strerror or "the disk refuses"
        raise StorageFull(f"the content could not be kept: {why}", hint="free some space and send it again") from error


def _pull(body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """Yield on a thread what arrives on the loop; an error there is raised here."""
    while True:
        part = asyncio.run_coroutine_threadsafe(_next(body), loop).result(STALLED_S)
        if not part:
            return
        yield part


async def _next(body: AsyncIterator[bytes]) -> bytes:
    return await anext(body, b"")
