"""What `titan doctor` finds in a home and a Master that are not as they should be."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_overview import look
from titan.cli import doctor
from titan.cli.doctor import BAD, GOOD, WARN, Check

URL = "https://192.0.2.7:9090"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    (folder / "token").write_text("secret")
    (folder / "token").chmod(0o600)
    return folder


def states(checks: Iterator[Check]) -> dict[str, str]:
    return {check.name: check.state for check in checks}


def test_a_good_home_is_good(home: Path, tmp_path: Path) -> None:
    assert set(states(doctor._home(home)).values()) == {GOOD}
    assert states(doctor._home(tmp_path / "none")) == {"home": GOOD}


@pytest.mark.parametrize(
    ("spoil", "name", "remedy"),
    [
        (lambda home: home.chmod(0o770), "home", "chmod go-w"),
        (lambda home: (home / "token").chmod(0o644), "token", "titan token create"),
    ],
)
def test_what_others_could_use_is_bad(home: Path, spoil: Callable[[Path], None], name: str, remedy: str) -> None:
    spoil(home)
    [check] = [check for check in doctor._home(home) if check.state == BAD]
    assert (check.name, remedy in check.remedy) == (name, True)


def test_a_remote_disk_and_a_full_one_are_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_file_system", lambda _: "nfs4")
    monkeypatch.setattr(doctor, "FREE_BYTES_MIN", 2**63)
    assert states(doctor._home(home)) == {"home": GOOD, "disk": WARN, "file system": BAD}


def test_the_file_system_of_a_path_is_found() -> None:
    assert doctor._file_system(Path("/proc/self")) == "proc"
    assert doctor._file_system(Path("/"))


def overview(**changes: Any) -> Any:
    found = look(now="2999-01-01T00:00:00.000Z")
    found["waiting"] = []
    found["stats"].update(changes)
    return found


def test_a_master_with_troubles_is_told_of_each() -> None:
    sick = overview(version="9.9.9", workers=0)
    sick["workers"] = [
        {**sick["workers"][0], "name": "gone", "connected": False},
        {**sick["workers"][0], "name": "old"},
    ]
    sick["waiting"] = [
        {**queue, "reason": "NO_WORKER_WITH_CAPABILITY", "message": "no connected worker offers GPU"}
        for queue in look()["waiting"]
    ]
    told = list(doctor._of(sick, URL))
    assert [(check.name, check.state) for check in told] == [
        ("master", WARN), ("clock", WARN), ("workers", BAD), ("worker", WARN), ("worker", WARN), ("queue", WARN),
    ]  # fmt: skip
    assert all(check.remedy for check in told)


def test_a_worker_that_was_stopped_in_order_is_no_trouble_unless_it_left_jobs() -> None:
    told = overview()
    left = {**told["workers"][0], "connected": False, "draining": True, "ahead": 0}
    told["workers"] = [{**left, "name": "done", "running": 0}, {**left, "name": "cut", "running": 1}]
    workers = [(check.found, check.state) for check in doctor._of(told, URL) if check.name == "worker"]
    assert workers == [("done was stopped in order", GOOD), ("cut is away", WARN)]


def test_a_busy_queue_is_no_trouble() -> None:
    assert [check.name for check in doctor._of({**overview(), "waiting": look()["waiting"]}, URL)] == [
        "master",
        "clock",
        "workers",
    ]
