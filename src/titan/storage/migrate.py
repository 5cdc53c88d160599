"""Bringing a database to the schema of this version, in one transaction: whole, or as it was."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from titan.storage.errors import SchemaNewer, StorageUnusable
from titan.storage.tables import METADATA

# The newest file in migrations/versions; a test holds it. Knowing it saves every start the import of Alembic.
HEAD = "0001"
_FOLDER = Path(__file__).with_name("migrations")


def migrate(engine: Engine, path: Path) -> None:
    """Migrate the database of `engine` (at `path`, for messages). Raises SchemaNewer or StorageUnusable."""
    with engine.connect() as connection, connection.begin():
        there = inspect(connection).get_table_names()
        current = _revision(connection, path, there)
        if current != HEAD:
            _upgrade(connection, path, current)
        elif missing := METADATA.tables.keys() - there:
            # The schema of a version is written once that is released, so it may have grown since.
            raise StorageUnusable(
                f"{path} lacks the table {min(missing)}: a Titan before its release has written it, or it is damaged;"
                " move it away, or choose another home (TITAN_HOME)"
            )


def _revision(connection: Connection, path: Path, tables: list[str]) -> str | None:
    if "alembic_version" in tables:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if tables:
        raise StorageUnusable(
            f"{path} is a database of something else (it holds {', '.join(sorted(tables)[:3])}):"
            " move it away, or choose another home (TITAN_HOME)"
        )
    return None


def _upgrade(connection: Connection, path: Path, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaNewer(
            f"{path} has the schema {current}, this Titan knows up to {HEAD}: a newer Titan has written it;"
            " install that version again, or put back the backup made before it"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
