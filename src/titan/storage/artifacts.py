"""Artifacts: files that jobs and people publish under a key, each publication a version of its own.

The newest version is what a key means. A publication is one operation of a batch: its row, its content when that is
small, and the end of the oldest version when the key has too many. Contents are kept once, however many versions
have the same one, and go with the last version that names them.

A number is given once: somebody may have written down "report, version 3". A key whose newest version was deleted
therefore leaves a mark, its highest number. So that marks do not grow for ever there is a floor, the mark under the
empty key: whatever has no mark goes on above it. With too many marks the floor rises to the lowest, which then need
not be kept.
"""

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, text

from titan.model.artifacts import ArtifactRow, ArtifactTotals
from titan.model.limits import Limits, change
from titan.model.states import LIVING_ATTEMPT_STATES
from titan.model.store import DeleteArtifact, PublishArtifact
from titan.storage import queries
from titan.storage.connection import Connection, Statement
from titan.storage.kv import Refused
from titan.storage.queries import Page
from titan.storage.tables import artifact_contents, artifact_marks, artifact_totals, artifacts

_AFTER_ALL = b"\xff"  # no UTF-8 text begins with this byte
_FLOOR = b""
_MARKS_DROPPED_MAX = 1_000
_COLUMNS = ArtifactRow.__struct_fields__
_row = [artifacts.c[name] for name in _COLUMNS]
_by_key = artifacts.c.key == bindparam("k")
_newer = artifacts.alias()
_newest = select(func.max(_newer.c.version)).where(_newer.c.key == artifacts.c.key).scalar_subquery()

_KEEP = Statement(insert(artifacts).values({name: bindparam(name) for name in _COLUMNS}), *_COLUMNS)
_KEEP_CONTENT = Statement(
    text(
        "INSERT INTO artifact_contents (sha256, size, data) VALUES (:sha256, :size, :data)"
        " ON CONFLICT (sha256) DO NOTHING"
    ),
    "sha256",
    "size",
    "data",
)
_VERSIONS = Statement(select(*_row).where(_by_key).order_by(artifacts.c.version.desc()), "k")
_ONE = Statement(select(*_row).where(_by_key, artifacts.c.version == bindparam("version")), "k", "version")
_NEWEST = Statement(select(*_row).where(_by_key).order_by(artifacts.c.version.desc()).limit(1), "k")
_NAMED = Statement(
    select(*_row).where(artifacts.c.name == bindparam("name")).order_by(artifacts.c.created_ms.desc()).limit(1), "name"
)
_LIST = Statement(
    select(*_row)
    .where(
        artifacts.c.key >= bindparam("low"), artifacts.c.key > bindparam("after"), artifacts.c.key < bindparam("high")
    )
    .where(artifacts.c.version == _newest)
    .order_by(artifacts.c.key)
    .limit(bindparam("rows")),
    "low",
    "after",
    "high",
    "rows",
)
_TOTALS = Statement(
    select(artifact_totals.c.versions, artifact_totals.c.bytes, artifact_totals.c.marks).where(
        artifact_totals.c.id == bindparam("one")
    ),
    "one",
)
_ADD = Statement(
    text(
        "UPDATE artifact_totals SET versions = versions + :versions, bytes = bytes + :bytes, marks = marks + :marks"
        " WHERE id = 1"
    ),
    "versions",
    "bytes",
    "marks",
)
_FIRST = Statement(
    text("INSERT INTO artifact_totals (id, versions, bytes, marks) VALUES (1, :versions, :bytes, :marks)"),
    "versions",
    "bytes",
    "marks",
)
_DROP = Statement(delete(artifacts).where(_by_key, artifacts.c.version == bindparam("version")), "k", "version")
_NAMED_STILL = Statement(
    select(artifacts.c.version).where(artifacts.c.sha256 == bindparam("sha256")).limit(1), "sha256"
)
_DROP_CONTENT = Statement(delete(artifact_contents).where(artifact_contents.c.sha256 == bindparam("sha256")), "sha256")
_CONTENT = Statement(
    select(artifact_contents.c.size, artifact_contents.c.data).where(artifact_contents.c.sha256 == bindparam("sha256")),
    "sha256",
)
_MARK = Statement(
    text(
        "INSERT INTO artifact_marks (key, version) VALUES (:k, :version)"
        " ON CONFLICT (key) DO UPDATE SET version = excluded.version WHERE excluded.version > artifact_marks.version"
    ),
    "k",
    "version",
)
_MARKS = Statement(
    select(artifact_marks.c.version)
    .where((artifact_marks.c.key == bindparam("k")) | (artifact_marks.c.key == bindparam("floor")))
    .order_by(artifact_marks.c.key.desc())
    .limit(1),
    "k",
    "floor",
)
_HAS_MARK = Statement(select(artifact_marks.c.version).where(artifact_marks.c.key == bindparam("k")), "k")
_LOWEST_MARK = Statement(
    select(func.min(artifact_marks.c.version)).where(artifact_marks.c.key > bindparam("floor")), "floor"
)
_needless = (
    select(artifact_marks.c.key)
    .where(artifact_marks.c.key > bindparam("floor"), artifact_marks.c.version <= bindparam("version"))
    .limit(bindparam("rows"))
)
_UNMARK = Statement(delete(artifact_marks).where(artifact_marks.c.key.in_(_needless)), "floor", "version", "rows")


def publish(connection: Connection, operation: PublishArtifact, limits: Limits) -> list[bool | str | None]:
    """Carry out `PublishArtifact`."""
    if operation.fence:
        attempt = queries.attempt(connection, operation.fence)
        if attempt is None or attempt.state not in LIVING_ATTEMPT_STATES:
            raise Refused("denied", "the attempt that published this is over: what it did counts no more")
    kept = versions(connection, operation.key)
    oldest = kept[max(0, limits.artifact_versions_max - 1) :]
    now = totals(connection)
    if not oldest and now.versions >= limits.artifacts_max:
        full = f"there are {limits.artifacts_max} versions of artifacts, which is the limit: delete some"
        raise Refused("conflict", f"{full} ({change('artifacts_max')})")
    new_bytes = operation.size if content(connection, operation.sha256) is None else 0
    if new_bytes and now.bytes + new_bytes > limits.artifacts_total_bytes_max:
        raise Refused("conflict", full_message(now.bytes, new_bytes, limits))
    version = 1 + max(kept[0].version if kept else 0, _marked(connection, operation.key))
    connection.change(_KEEP_CONTENT, operation.sha256, operation.size, operation.data)
    connection.change(
        _KEEP,
        operation.key.encode(),
        version,
        operation.name,
        operation.sha256,
        operation.size,
        operation.now_ms,
        operation.created_by,
        operation.run_id,
        operation.job_id,
        operation.attempt,
    )
    _add(connection, versions=1, size=new_bytes)
    return [str(version), *_drop(connection, oldest)]


def delete_versions(connection: Connection, operation: DeleteArtifact, limits: Limits) -> list[bool | str | None]:
    """Carry out `DeleteArtifact`."""
    kept = versions(connection, operation.key)
    chosen = [row for row in kept if operation.version in (0, row.version)]
    if chosen and chosen[0] == kept[0]:
        _mark(connection, operation.key, kept[0].version, limits)
    return [str(len(chosen)), *_drop(connection, chosen)]


def versions(connection: Connection, key: str) -> list[ArtifactRow]:
    """Return all versions of an artifact, the newest first."""
    return [_artifact(row) for row in connection.rows(_VERSIONS, key.encode())]


def find(connection: Connection, key: str, version: int = 0) -> ArtifactRow | None:
    """Return one version of an artifact, the newest for 0."""
    row = connection.row(_ONE, key.encode(), version) if version else connection.row(_NEWEST, key.encode())
    return None if row is None else _artifact(row)


def find_named(connection: Connection, name: str) -> ArtifactRow | None:
    """Return what was published last from a file called `name`."""
    row = connection.row(_NAMED, name)
    return None if row is None else _artifact(row)


def page(connection: Connection, prefix: str, limit: int, after: str | None) -> Page[ArtifactRow]:
    """Return the newest version of each artifact whose key begins with `prefix`, sorted, from behind `after` on."""
    low = prefix.encode()
    found = connection.rows(_LIST, low, (after or "").encode(), low + _AFTER_ALL, limit + 1)
    rows = [_artifact(row) for row in found[:limit]]
    return Page(rows, rows[-1].key if len(found) > limit else None)


def content(connection: Connection, sha256: str) -> tuple[int, bytes | None] | None:
    """Return size and data of a content, data None when it is a file; None when there is none."""
    row = connection.row(_CONTENT, sha256)
    return None if row is None else (row[0], row[1])


def totals(connection: Connection) -> ArtifactTotals:
    """Return how much is kept in all."""
    row = connection.row(_TOTALS, 1)
    return ArtifactTotals() if row is None else ArtifactTotals(*row)


def full_message(kept: int, more: int, limits: Limits) -> str:
    """Return the words for `more` bytes of an artifact beside `kept` bytes of others, which is over the limit."""
    limit = limits.artifacts_total_bytes_max
    text = f"there are {kept} bytes of artifacts, with {more} more they would be over the limit of {limit}: delete some"
    return f"{text} ({change('artifacts_total_bytes_max')})"


def _add(connection: Connection, *, versions: int = 0, size: int = 0, marks: int = 0) -> None:
    if not connection.change(_ADD, versions, size, marks):
        connection.change(_FIRST, versions, size, marks)


def _marked(connection: Connection, key: str) -> int:
    """Return the highest number that versions of `key` which are gone can have had."""
    row = connection.row(_MARKS, key.encode(), _FLOOR)
    return 0 if row is None else int(row[0])


def _mark(connection: Connection, key: str, version: int, limits: Limits) -> None:
    if connection.row(_HAS_MARK, key.encode()) is None:
        _add(connection, marks=1)
    connection.change(_MARK, key.encode(), version)
    if totals(connection).marks > limits.artifacts_max and (row := connection.row(_LOWEST_MARK, _FLOOR)):
        connection.change(_MARK, _FLOOR, row[0])
        _add(connection, marks=-connection.change(_UNMARK, _FLOOR, row[0], _MARKS_DROPPED_MAX))


def _drop(connection: Connection, rows: list[ArtifactRow]) -> list[bool | str | None]:
    """Drop versions, and the contents that nothing names any more; return the hashes of those."""
    for row in rows:
        connection.change(_DROP, row.key.encode(), row.version)
    gone: list[bool | str | None] = []
    freed = 0
    for sha256, size in {row.sha256: row.size for row in rows}.items():
        if connection.row(_NAMED_STILL, sha256) is None:
            freed += size * connection.change(_DROP_CONTENT, sha256)
            gone.append(sha256)
    if rows:
        _add(connection, versions=-len(rows), size=-freed)
    return gone


def _artifact(values: Any) -> ArtifactRow:
    return ArtifactRow(values[0].decode(), *values[1:])
