"""Artifacts: files of any size that jobs and people publish under a key, and fetch anywhere.

Both ways they are streamed, so that size costs no memory, and both ways the SHA-256 is compared: the Master refuses a
body that is not what was read here, and a download takes its name only when all of it is right.
"""

from __future__ import annotations

import os

from titan_sdk.api import Api, segment
from titan_sdk.errors import Conflict, Invalid, NotFound, TitanError, Unreachable
from titan_sdk.idempotency import random_key
from titan_sdk.reading import BYTES, begin_of, text_of, unreadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, BinaryIO, Self

    Progress = Callable[[int, int], object]

PIECE_BYTES = 256 * 1024
SLOWEST_BYTES_S = 4 * 1024 * 1024  # the Master has as long as this disk would take to make what was sent durable
CUTS_MAX = 5


class ArtifactCalls(Api):
    """The calls of TitanClient that publish and fetch artifacts."""

    def publish_artifact(
        self, key: str, path: str | os.PathLike[str], progress: Progress | None = None
    ) -> dict[str, Any]:
        """Publish a file under a key; the newest publication is what the key means, the last five are kept.

        What a job publishes counts only while its attempt lives. `progress` is called with the bytes sent and the
        bytes in all. Returns a dict with `key`, `version`, `name` (the base name of `path`), `sha256`, `size`,
        `run_id` and `job_id`. Example: ``client.publish_artifact("report", "out/report.html")``.
        Raises FileMissing, Invalid.
        """
        path = text_of(path)
        begin_of(path)
        sha256, size = _hash_of(path)
        query = {"key": _key(key), "name": os.path.basename(path), "sha256": sha256}
        answer = self._transport.call(
            "PUT",
            "artifacts",
            query=query,
            body=lambda: _sent(path, size, progress),
            size=size,
            content_type=BYTES,
            key=random_key(),
            wait_s=size / SLOWEST_BYTES_S,
        )
        published: dict[str, Any] = answer.json()
        return published

    def get_artifact(
        self,
        key: str,
        save_path: str | os.PathLike[str] | None = None,
        version: int | None = None,
        progress: Progress | None = None,
        replace: bool = True,
    ) -> dict[str, Any]:
        """Save an artifact at `save_path`: a file, which is replaced, a folder, or None for the working folder.

        It is the newest version, or the one asked for. With `replace=False` a file that is there stays and Conflict is
        raised. Nothing is left behind when the download fails. Returns a dict with `path`, `key`, `version`, `sha256`
        and `size`. Example: ``client.get_artifact("report", "report.html")``. Raises NotFound.
        """
        return self._saved({"key": _key(key), "version": version or 0}, save_path, progress, replace=replace)

    def fetch_artifact(self, filename: str, save_path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Save what was published last from a file called `filename`, whatever its key; else as `get_artifact`.

        When none was, it is the file of that name that `upload_file` has put there, with "" for a key and version 0.
        Example: ``client.fetch_artifact("report.html", "latest.html")``. Raises NotFound.
        """
        name = os.path.basename(_key(filename))
        try:
            return self._saved({"name": name}, save_path, None)
        except NotFound as missing:
            try:
                entry = self._get(f"registry/{segment(name)}")
            except (NotFound, Invalid):
                raise missing from None
        content = self._transport.call("GET", f"blobs/{entry['sha256']}").body
        path = _target(save_path, name)
        _write(path, [content])
        return {"path": path, "key": "", "version": 0, "sha256": entry["sha256"], "size": entry["size"]}

    def read_artifact(self, key: str, version: int | None = None) -> Iterator[bytes]:
        """Yield the content of an artifact in pieces, without a file; its hash is compared at the end.

        Example: ``text = b"".join(client.read_artifact("report")).decode()``. Raises NotFound, Unreachable.
        """
        return _Download(self, {"key": _key(key), "version": version or 0}).pieces()

    def list_artifacts(self, prefix: str = "") -> list[dict[str, Any]]:
        """Return the newest version of each artifact whose key begins with `prefix`, sorted by key.

        Example: ``[artifact["key"] for artifact in client.list_artifacts("reports/")]``.
        """
        return list(self._pages("artifacts", "artifacts", "after", {"prefix": _key(prefix)}, None))

    def artifact_versions(self, key: str) -> list[dict[str, Any]]:
        """Return the versions that are kept of an artifact, the newest first, with the job that published each.

        Example: ``client.artifact_versions("report")[0]["job_id"]``. Raises NotFound.
        """
        versions: list[dict[str, Any]] = self._get("artifacts/versions", {"key": _key(key)})["artifacts"]
        return versions

    def delete_artifact(self, key: str, version: int | None = None) -> int:
        """Delete one version of an artifact, or all; return how many went. Jobs may not.

        Example: ``client.delete_artifact("report")``. Raises NotFound.
        """
        query = {"key": _key(key), "version": version or 0}
        return int(self._transport.call("DELETE", "artifacts", query=query, key=random_key()).json()["deleted"])

    def _saved(
        self,
        query: dict[str, Any],
        save_path: str | os.PathLike[str] | None,
        progress: Progress | None,
        *,
        replace: bool = True,
    ) -> dict[str, Any]:
        download = _Download(self, query)
        pieces = download.pieces()
        try:
            first = next(pieces, b"")
            path = _target(save_path, download.name)
            if not replace and os.path.lexists(path):
                raise _taken(path)
            _write(path, _told(_with_first(first, pieces), download, progress), replace=replace)
        finally:
            pieces.close()
        return {
            "path": path,
            "key": download.key,
            "version": download.version,
            "sha256": download.sha256,
            "size": download.size,
        }


class _Download:
    """One content on its way here. What it is stands in its fields after the first piece."""

    def __init__(self, api: Api, query: dict[str, Any]) -> None:
        self.key = self.name = self.sha256 = ""
        self.version = self.size = 0
        self._transport = api._transport
        self._query = query

    def pieces(self) -> Generator[bytes]:
        """Yield it, after a cut from where it was cut. Raises Unreachable when it was cut too often, or is damaged."""
        from hashlib import sha256

        digest = sha256()
        done = cuts = 0
        while cuts < CUTS_MAX:
            before = done
            with self._transport.download("artifacts/content", {**self._query, "offset": done}) as answer:
                self._learn(answer.headers)
                arriving = answer.pieces()
                while True:
                    try:
                        piece = next(arriving, b"")
                    except OSError:
                        break
                    if not piece:
                        break
                    digest.update(piece)
                    done += len(piece)
                    yield piece
            if done >= self.size:
                break
            cuts = 0 if done > before else cuts + 1
        if done != self.size or digest.hexdigest() != self.sha256:
            why = f"it broke off after {done} of {self.size} bytes" if done != self.size else "its SHA-256 is another"
            raise Unreachable(f"artifact {self.key!a} did not arrive whole: {why}", hint="fetch it again")

    def _learn(self, headers: dict[str, str]) -> None:
        from urllib.parse import unquote

        self.key = unquote(headers["titan-artifact-key"])
        self.version = int(headers["titan-artifact-version"])
        self.size = int(headers["titan-artifact-size"])
        self.sha256 = headers["titan-artifact-sha256"]
        self.name = unquote(headers["content-disposition"].partition("filename*=UTF-8''")[2])
        self._query = {"key": self.key, "version": self.version}  # whatever is published meanwhile


class _Part:
    """A file that is written beside `path` and takes its name when it is whole."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._part = f"{path}.part-{os.urandom(6).hex()}"
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._file = open(self._part, "xb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if os.path.lexists(self._part):
            os.unlink(self._part)

    def write(self, piece: bytes) -> None:
        self._file.write(piece)

    def keep(self, *, replace: bool) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        if replace:
            os.replace(self._part, self._path)
            return
        try:
            os.link(self._part, self._path)  # somebody may have made one meanwhile
        except FileExistsError:
            raise
        except OSError:  # no hard links there
            with open(self._path, "xb"):
                os.replace(self._part, self._path)


def _write(path: str, pieces: Iterable[bytes], *, replace: bool = True) -> None:
    try:
        with _Part(path) as part:
            for piece in pieces:
                part.write(piece)
            part.keep(replace=replace)
    except TitanError:  # some of them are OSErrors too
        raise
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise Invalid(f"{path} cannot be written: {error.strerror or error}") from error


def _taken(path: str) -> Conflict:
    return Conflict(f"{path} is there already", hint="give save_path= another path, or replace=True")


def _told(pieces: Iterator[bytes], download: _Download, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if progress is not None:
            progress(done, download.size)


def _with_first(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _target(save_path: str | os.PathLike[str] | None, name: str) -> str:
    """Return where to save. The name comes from the Master: it never leads out of a folder."""
    path = "." if save_path is None else text_of(save_path)
    if os.path.isdir(path):
        if name in ("", ".", "..") or os.path.basename(name) != name or "\0" in name:
            raise Invalid(f"{name!a} is no name for a file", hint="give save_path= the path of a file")
        path = os.path.join(path, name)
    if os.path.exists(path) and not os.path.isfile(path):
        raise Invalid(f"{path} is there and is no regular file", hint="give save_path= another path")
    return path


def _key(key: str) -> str:
    if not isinstance(key, str):
        raise Invalid(f"{key!r} is no key or name: it is of type {type(key).__name__}", hint="give it as text")
    return key


def _hash_of(path: str) -> tuple[str, int]:
    from hashlib import sha256

    digest = sha256()
    size = 0
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise unreadable(path, error) from None
    return digest.hexdigest(), size


def _sent(path: str, size: int, progress: Progress | None) -> Iterator[bytes]:
    done = 0
    try:
        with open(path, "rb") as file:
            while done < size and (piece := file.read(min(PIECE_BYTES, size - done))):
                yield piece
                done += len(piece)
                if progress is not None:
                    progress(done, size)
    except OSError as error:
        raise unreadable(path, error) from None
    if done < size:
        raise Invalid(f"{path} became shorter while it was sent", hint="publish it when it is complete")
