"""Scripts by content hash: fetched from the Master once, checked, and kept beside the worker.

Ten thousand jobs with one script fetch it once; those that come while it is on its way wait for the same
fetch. While the Master is away the fetch waits as well.
"""

import asyncio
import hashlib
import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from titan.model.limits import DEFAULT_LIMITS
from titan.worker.workspace import held_folder
from titan_sdk.discovery import PORTS
from titan_sdk.errors import TitanError
from titan_sdk.trust import context_for

UNUSED_KEPT_S = 7 * 24 * 3600
_TIMEOUT_S = 30.0
_RETRY_S_MAX = 5.0
_CHUNK_BYTES = 256 * 1024


class ScriptGone(Exception):
    """The Master has no such script, or not what its hash says; trying again cannot help."""


class Scripts:
    """The cache below `folder`. `url` (the Master's) and `token` are asked anew for each try; `ca`: whom to trust."""

    def __init__(self, folder: Path, url: Callable[[], str], token: Callable[[], str], ca: str = "") -> None:
        self._folder = held_folder(folder)
        self._url = url
        self._token = token
        self._ca = ca
        self._fetches: dict[str, asyncio.Task[Path]] = {}

    def kept(self, sha256: str) -> Path | None:
        """Return the file with that content if it is here."""
        path = self._folder / sha256
        try:
            os.utime(path, follow_symlinks=False)  # in use: `sweep` goes by it
        except FileNotFoundError:
            return None
        return path

    async def fetch(self, sha256: str) -> Path:
        """Get the file with that content here. Raises ScriptGone, and OSError when it cannot be kept."""
        fetch = self._fetches.get(sha256)
        if fetch is None:
            fetch = self._fetches[sha256] = asyncio.create_task(self._fetch(sha256, self._folder / sha256))
            fetch.add_done_callback(lambda _: self._fetches.pop(sha256, None))
            # When all who waited have gone, its failure is nobody's.
            fetch.add_done_callback(lambda done: done.cancelled() or done.exception())
        # One job that stops waiting does not stop the fetch for the others.
        return await asyncio.shield(fetch)

    def sweep(self) -> None:
        """Remove what no job used for a week."""
        oldest = time.time() - UNUSED_KEPT_S
        for entry in list(os.scandir(self._folder)):
            if entry.stat(follow_symlinks=False).st_mtime < oldest and not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)

    async def _fetch(self, sha256: str, path: Path) -> Path:
        window_s = 0.1
        while True:
            try:
                await _in_thread(lambda: self._download(sha256, path))
                return path
            except (ConnectionError, TimeoutError, http.client.HTTPException):
                await asyncio.sleep(random.uniform(0, window_s))  # noqa: S311 - jitter
                window_s = min(_RETRY_S_MAX, window_s * 2)

    def _download(self, sha256: str, path: Path) -> None:
        connection = self._connection()
        try:
            headers = {"Authorization": f"Bearer {self._token()}"}
            try:
                connection.request("GET", f"/api/v1/blobs/{sha256}", headers=headers)
                answer = connection.getresponse()
            except OSError as error:
                raise http.client.HTTPException("the Master cannot be reached") from error
            with answer:
                if answer.status == 404:
                    raise ScriptGone(f"the Master no longer has its file {sha256[:12]}")
                if answer.status != 200:
                    raise http.client.HTTPException(f"the Master answered {answer.status}")
                self._keep(answer, sha256, path)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._url())
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        try:
            context = context_for(self._ca, host, port, _TIMEOUT_S)
        except (OSError, TitanError) as error:
            raise http.client.HTTPException(f"the Master cannot be reached: {error}") from error
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)

    def _keep(self, answer: http.client.HTTPResponse, sha256: str, path: Path) -> None:
        unfinished = path.with_name(f"{sha256}.part")
        digest = hashlib.sha256()
        size = 0
        unfinished.unlink(missing_ok=True)
        with open(unfinished, "xb", opener=_private) as file:
            while chunk := answer.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > DEFAULT_LIMITS.blob_bytes_max:
                    raise ScriptGone(f"its file {sha256[:12]} is larger than {DEFAULT_LIMITS.blob_bytes_max} bytes")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            # A name in the cache is never checked again, so it must not outlive its content in a power cut.
            os.fsync(file.fileno())
        if answer.length:
            raise http.client.HTTPException("the Master broke off")
        if digest.hexdigest() != sha256:
            raise ScriptGone(f"the Master sent something else for its file {sha256[:12]}")
        os.rename(unfinished, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


async def _in_thread(work: Callable[[], None]) -> None:
    """Run `work` on a thread of its own that nobody waits for when the worker leaves: a Master may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again by whoever awaits
            failure = error
        try:
            loop.call_soon_threadsafe(tell, failure)
        except RuntimeError:
            pass  # the worker is gone, and with it whoever wanted to know

    threading.Thread(target=run, name="titan-fetch", daemon=True).start()
    await done
