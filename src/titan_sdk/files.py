"""Files at the Master: contents by hash, and the registry of names that jobs may use."""

from __future__ import annotations

import os

from titan_sdk.api import segment
from titan_sdk.artifacts import ArtifactCalls
from titan_sdk.errors import Invalid
from titan_sdk.idempotency import random_key
from titan_sdk.reading import BYTES, begin_of, pieces_of, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from titan_sdk.line import Reply


class FileCalls(ArtifactCalls):
    """The calls of TitanClient that send files."""

    def upload_file(self, path: str | os.PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Put a file into the Master's registry, under its base name or `name`; the newest wins.

        A job whose `filename` is not on its submitter's disk gets this one, as it is when the job is submitted.
        Returns a dict with `name`, `sha256` and `size`. Example: ``client.upload_file("scripts/patch.py")``.
        Raises FileMissing, Invalid.
        """
        path = text_of(path)
        begin_of(path)
        name = name or os.path.basename(path)
        if "/" in str(name):
            raise Invalid(f"name {name!r} has the character '/': give a name without folders")
        answer = self._put(f"registry/{segment(name)}", path)
        entry: dict[str, Any] = answer.json()
        return entry

    def deploy_script(self, path: str | os.PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Put a script into the registry, after a look whether a job could run it; else as `upload_file`.

        Example: ``client.deploy_script("agents/autonomous_agent.py")``. Raises Invalid for a file that is neither
        ``.py`` nor begins with a shebang line.
        """
        path = text_of(path)
        if begin_of(path) != b"#!" and not (name or path).endswith(".py"):
            raise Invalid(
                f"{path} is no script that a job could run: it is neither .py nor begins with #!",
                hint="upload_file keeps any other file",
            )
        return self.upload_file(path, name)

    def _put_blobs(self, contents: Mapping[str, bytes | str]) -> None:
        """Send each content (bytes, or the path of a file) under its SHA-256."""
        for digest, content in contents.items():
            self._put(f"blobs/{digest}", content)

    def _put(self, route: str, content: bytes | str) -> Reply:
        """Send a content (bytes, or the path of a file). Raises Invalid that names a file which is too large."""

        def body() -> bytes | Iterator[bytes]:
            return content if isinstance(content, bytes) else pieces_of(content)

        try:
            return self._transport.call("PUT", route, body=body, content_type=BYTES, key=random_key())
        except Invalid as error:
            if error.code != "too_large":
                raise
            raise _too_large(content, error) from None


def _too_large(content: bytes | str, error: Invalid) -> Invalid:
    """Return the Master's refusal with the name of what was sent, its size, and where so much data belongs."""
    if isinstance(content, str):
        name, size = content, os.path.getsize(content)
    else:
        name, size = "script_content", len(content)
    limit = error.message.rpartition("the limit of ")[2].partition(" ")[0]
    most = f"{int(limit):,} bytes" if limit.isdecimal() else "less"
    return Invalid(
        f"{name} has {size:,} bytes: a script, or a file that jobs find by its name, may have {most}",
        code=error.code,
        hint="publish data as an artifact, titan artifacts put KEY FILE, and have the script fetch it, "
        f"client.get_artifact(KEY); {error.hint}",
    )
