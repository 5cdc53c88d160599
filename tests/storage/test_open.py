"""Opening: a fresh home, an existing one, and everything that must be refused with a way out."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.storage.backend import Storage
from tests.storage.builders import new_run
from titan.storage import migrate, sqlite
from titan.storage.database import Database
from titan.storage.errors import DatabaseCorrupt, DatabaseInUse, RefusedStart, SchemaNewer, StorageUnusable


def opened(home: Path) -> Database:
    return Database.open(f"sqlite:///{home}/titan.db", home)


def refused(home: Path, kind: type[RefusedStart]) -> str:
    """Return the message of the refusal; the lock must be free again after it."""
    with pytest.raises(kind) as error:
        opened(home)
    if (home / "titan.db.lock").exists():
        os.close(sqlite.lock(home / "titan.db"))
    return str(error.value)


def test_a_fresh_home_is_made_private(tmp_path: Path) -> None:
    home = tmp_path / "state" / "titan"
    database = opened(home)
    database.writer().run("UPDATE leader SET renewals = 1")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home, *home.iterdir())}
    assert modes.pop("titan") == 0o700
    assert {*modes.values()} == {0o600}
    assert {"titan.db", "titan.db-wal", "titan.db-shm", "titan.db.lock"} == {*modes}
    database.close()


def test_what_was_kept_is_there_at_the_next_start(storage: Storage) -> None:
    storage.commit(new_run())
    before = storage.everything()
    storage.reopen()
    assert storage.everything() == before


def test_settings_of_the_database_are_those_promised(storage: Storage) -> None:
    connection = storage.database.writer()
    found = {name: connection.run(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")}
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 0}
    assert connection.run("PRAGMA journal_size_limit")[0][0] == sqlite.WAL_BYTES_MAX
    assert connection.run("PRAGMA cache_size") == [(-sqlite.WRITER_CACHE_KIB,)]
    assert storage.database.read(lambda reader: reader.run("PRAGMA query_only")) == [(1,)]
    assert storage.database.read(lambda reader: reader.run("PRAGMA cache_size")) == [(-sqlite.READER_CACHE_KIB,)]


def test_f13_a_second_master_on_one_file_is_refused(storage: Storage) -> None:
    with pytest.raises(DatabaseInUse, match=f"process {os.getpid()}"):
        opened(storage.home)


def test_f13_also_from_another_process_and_only_while_the_first_lives(storage: Storage) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from titan.storage.database import Database\n"
        "from titan.storage.errors import DatabaseInUse\n"
        "try:\n"
        "    Database.open(f'sqlite:///{sys.argv[1]}/titan.db', Path(sys.argv[1])).close()\n"
        "except DatabaseInUse:\n"
        "    sys.exit(6)\n"
    )
    command = [sys.executable, "-c", program, str(storage.home)]
    assert subprocess.run(command, check=False).returncode == 6
    storage.close()
    assert subprocess.run(command, check=False).returncode == 0
    storage.open()


def test_a_newer_schema_is_refused_untouched(storage: Storage) -> None:
    storage.close()
    path = storage.home / "titan.db"
    with sqlite3.connect(path) as outside:
        outside.execute("UPDATE alembic_version SET version_num = '9999'")
    outside.close()
    before = path.read_bytes()
    message = refused(storage.home, SchemaNewer)
    assert "9999" in message
    assert migrate.HEAD in message
    assert "install that version again" in message
    assert path.read_bytes() == before
    with sqlite3.connect(path) as outside:
        outside.execute("UPDATE alembic_version SET version_num = ?", [migrate.HEAD])
    outside.close()
    storage.open()


def test_a_migration_that_is_killed_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    made: list[str] = []
    original = Operations.create_table

    def create_table(self: Operations, name: str, *columns: object, **options: object) -> object:
        made.append(name)
        if name == "kv":
            raise KeyboardInterrupt
        return original(self, name, *columns, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as killed:
        killed.setattr(Operations, "create_table", create_table)
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path)
    assert "runs" in made
    with sqlite3.connect(tmp_path / "titan.db") as outside:
        assert outside.execute("SELECT name FROM sqlite_master").fetchall() == []
    outside.close()
    opened(tmp_path).close()


def test_a_schema_that_has_grown_since_it_was_written_is_refused_untouched(storage: Storage) -> None:
    storage.close()
    path = storage.home / "titan.db"
    with sqlite3.connect(path) as outside:
        outside.execute("DROP TABLE artifact_totals")
    outside.close()
    before = path.read_bytes()
    message = refused(storage.home, StorageUnusable)
    assert "lacks the table artifact_totals" in message
    assert "TITAN_HOME" in message
    assert path.read_bytes() == before
    path.unlink()
    storage.open()


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "titan.db"
    with sqlite3.connect(path) as outside:
        outside.execute("CREATE TABLE recipes (name TEXT)")
    outside.close()
    assert "recipes" in refused(tmp_path, StorageUnusable)
    with sqlite3.connect(path) as outside:
        assert outside.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    outside.close()


@pytest.mark.parametrize("content", [b"not a database at all\n" * 400, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_f10_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "titan.db"
    path.write_bytes(content)
    message = refused(tmp_path, DatabaseCorrupt)
    assert str(path) in message
    assert "backup" in message
    assert path.read_bytes() == content


def test_f10_damaged_pages_are_found_at_the_start(storage: Storage, tmp_path: Path) -> None:
    """Every page of a small database, its head overwritten: none is opened as if nothing were."""
    storage.commit(*(new_run(f"{number:032x}") for number in range(200)))
    storage.close()
    path = storage.home / "titan.db"
    good = path.read_bytes()
    for page in range(len(good) // 4096):
        begin = page * 4096
        path.write_bytes(good[:begin] + b"\xa5" * 64 + good[begin + 64 :])
        assert "damaged" in refused(storage.home, DatabaseCorrupt), page
    path.write_bytes(good)
    storage.open()


@pytest.mark.parametrize("url", ["postgresql://h/db", "sqlite://", "sqlite:///:memory:", "titan.db", "", "mysql://h/x"])
def test_an_address_that_is_no_sqlite_file_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageUnusable, match="give sqlite:///PATH"):
        Database.open(url, tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_a_password_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(StorageUnusable) as error:
        Database.open("postgresql://titan:hunter2@db/titan", tmp_path)
    assert "hunter2" not in str(error.value)


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refused(tmp_path / "file" / "home", StorageUnusable)
    assert "cannot be written" in message
    assert "TITAN_HOME" in message


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "titan.db").mkdir()
    assert "cannot be written" in refused(tmp_path, StorageUnusable)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_home_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in refused(tmp_path, StorageUnusable)


def test_an_old_sqlite_is_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    assert "3.37 or newer" in refused(tmp_path, StorageUnusable)


def test_a_home_with_unusual_characters_is_a_home(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "50% ünï #1 home")
    storage.commit(new_run())
    storage.reopen()
    assert len(storage.rows("runs")) == 1
    storage.close()
