"""Holes planted in a worker, by the same rule as those of the Master: one defence out, and a named test must fail."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli import test_output
from tests.unit import test_banned_calls, test_link_frames
from tests.unit.core import test_link_slots
from tests.worker import test_attempts, test_environment, test_races, test_workspace
from titan.cli import output
from titan.core import link
from titan.model import wire
from titan.worker import attempts, environment, policy, scripts, spool, workspace
from titan.worker.policy import Policy
from titan.worker.workspace import Grave, Workspaces

Patch = Callable[[pytest.MonkeyPatch], None]
SPECS = test_attempts.test_s47_a_description_that_no_master_should_send_starts_nothing
ALLOWED = test_attempts.test_s47_only_what_its_owner_allows_runs_jobs


class WorkerHole(msgspec.Struct, frozen=True):
    """One defence of a worker taken out, and the test that has to notice, given a folder."""

    name: str
    patch: Patch
    caught_by: Callable[[Path], object]


def setting(owner: Any, name: str, value: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def _patched(test: Callable[..., None], *arguments: Any) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            test(monkeypatch, folder, *arguments)

    return run


def _chmod_by_name(self: Grave, name: str, parent: int) -> bool:
    status = workspace.os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_mode & 0o700 != 0o700:
        workspace.os.chmod(name, 0o700, dir_fd=parent)
    return True


def _by_path(self: Workspaces, fence: int) -> None:
    folder = f"{self._path}/{workspace.JOBS}/{fence}"
    for name in os.listdir(folder):
        target = os.path.realpath(f"{folder}/{name}")
        if os.path.isdir(target) and not folder.startswith(target):
            shutil.rmtree(target, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _any_folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _truncated(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)


def _any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = msgspec.msgpack.Decoder(list[dict[str, Any]], strict=False)
    monkeypatch.setattr(wire, "_MASTER_FRAME", decoder)


def _one_link_out(path: Path) -> None:
    spaces, script = Workspaces(path / "w"), path / "script"
    script.write_text("print('x')")
    test_workspace.test_s48_links_out_of_a_folder_are_cut_and_not_followed(spaces, script, path)


def _precious(path: Path) -> None:
    script = path / "script"
    script.write_text("print('x')")
    with pytest.MonkeyPatch.context() as monkeypatch:
        spaces = Workspaces(path / "w")
        test_workspace.test_s48_what_nobody_may_lose_is_refused_wherever_it_is_found(spaces, script, path, monkeypatch)


HOLES = [
    WorkerHole("s22: a worker is started with all of the shell", setting(
        test_environment, "own_environment", lambda environ, _: dict(environ)),
        lambda _: test_environment.test_s22_a_worker_is_started_with_no_more_than_it_needs()),
    WorkerHole("s22: one secret is on the list", setting(environment, "OWN", environment.OWN | {"TITAN_TOKEN"}),
        lambda _: test_environment.test_s22_a_worker_is_started_with_no_more_than_it_needs()),
    WorkerHole("s31: pickle is not on the list", setting(test_banned_calls, "BANNED_MODULES", set()),
        lambda _: test_banned_calls.test_s31_each_banned_call_is_found_in_any_file("import pickle")),
    WorkerHole("s40: escapes reach the terminal", setting(output, "_escaped", lambda match: match.group()),
        lambda _: test_output.test_s40_a_terminal_sees_control_characters_escaped("clipboard")),
    WorkerHole("s40: newlines stay in a table", setting(output, "_UNSAFE", output.re.compile("[\x07]")),
        lambda _: test_output.test_s40_no_cell_of_a_table_and_no_line_of_a_program_is_more_than_a_line("cursor")),
    WorkerHole("s47: a description is not checked", setting(policy, "spec_problems", lambda *_: []),
        _patched(SPECS, {"filename": ".."})),
    WorkerHole("s47: a script need not have a hash", setting(attempts, "grant_problem", lambda *_: None),
        _patched(SPECS, {"script": "../../../etc/passwd"})),
    WorkerHole("s47: any interpreter", setting(Policy, "script_problem", lambda *_: None),
        _patched(ALLOWED, b"#!/bin/bash\n", "job.sh", ("/bin/sh",), "'job.sh' runs by '/bin/bash'", False)),
    WorkerHole("s47: an interpreter that begins like one", setting(policy, "_interpreter", lambda _: "/bin/sh"),
        _patched(ALLOWED, b"#!/bin/bash\n", "job.sh", ("/bin/sh",), "'job.sh' runs by '/bin/bash'", False)),
    WorkerHole("s47: any time", setting(Policy, "bounded", lambda _, spec: spec),
        _patched(test_attempts.test_s47_no_job_runs_longer_than_its_owner_allows, None, 60_000)),
    WorkerHole("s47: any number", _any_number,
        lambda _: test_link_frames.test_s47_a_number_that_no_master_gives_is_refused(-1)),
    WorkerHole("s47: descriptions wait without end", setting(link, "WAITING_BYTES_MAX", 1 << 40),
        lambda _: test_link_slots.test_s47_large_descriptions_that_wait_fill_no_memory()),
    WorkerHole("s48: a permission is changed by name", setting(Grave, "_made_writable", _chmod_by_name),
        test_races.test_s48_ten_thousand_races_touch_nothing_outside),
    WorkerHole("s48: folders are opened through links", setting(workspace, "_FOLDER", os.O_RDONLY | os.O_DIRECTORY),
        test_races.test_s48_ten_thousand_races_touch_nothing_outside),
    WorkerHole("s48: removal goes by path and through links", setting(Workspaces, "remove", _by_path), _one_link_out),
    WorkerHole("s48: the home may be removed", setting(Grave, "_check", lambda *_: None), _precious),
    WorkerHole("s48: logs go where a link leads", setting(spool, "_new_file", _truncated),
        test_workspace.test_s48_a_log_is_not_written_through_a_link),
    WorkerHole("s48: kept scripts are swept where a link leads", setting(scripts, "held_folder", _any_folder),
        test_workspace.test_s48_what_a_job_put_in_the_place_of_our_folders_leads_nowhere),
]  # fmt: skip
