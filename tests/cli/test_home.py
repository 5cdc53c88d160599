"""The home: private, with a token, held by one at a time."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from titan.cli import home as homes
from titan.cli.home import Holder
from titan_sdk.errors import Conflict, Invalid

HOLD = """
import sys
from pathlib import Path
from titan.cli.home import Holder, take
lock = take(Path(sys.argv[1]))
lock.record(Holder(1234, "http://127.0.0.1:9090", ready=True))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_home_is_private_and_its_parents_are_made(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    homes.prepare(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    homes.prepare(home)


def test_a_home_that_cannot_be_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Invalid, match="cannot be Titan's home: it is a file") as caught:
        homes.prepare(tmp_path / "file")
    assert "TITAN_HOME" in caught.value.hint
    with pytest.raises(Invalid, match="Not a directory"):
        homes.prepare(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_home_others_may_write_to_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(Invalid, match=r"may be written by others \(mode 777\)") as caught:
        homes.prepare(tmp_path)
    assert caught.value.hint.startswith(f"chmod go-w {tmp_path}")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o777


def test_the_token_is_256_bits_private_and_kept(tmp_path: Path) -> None:
    homes.ensure_token(tmp_path)
    path = tmp_path / "token"
    first = path.read_text()
    assert re.fullmatch("[0-9a-f]{64}\n", first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    homes.ensure_token(tmp_path)
    assert path.read_text() == first
    path.chmod(0o604)
    with pytest.raises(Invalid, match="token is open to others") as refused:
        homes.ensure_token(tmp_path)
    assert refused.value.hint.startswith(f"rm {path}, and the next start makes a new one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    path.write_text("\n")
    homes.ensure_token(tmp_path)
    assert path.read_text() not in ("\n", first)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["token"]


def test_one_holder_at_a_time_and_the_second_is_told_who(tmp_path: Path) -> None:
    assert homes.holder(tmp_path) is None
    held = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with held:
        assert held.stdout is not None
        assert held.stdout.readline() == "held\n"
        assert homes.holder(tmp_path) == Holder(1234, "http://127.0.0.1:9090", ready=True)
        with pytest.raises(Conflict, match=r"up already on .*: pid 1234 at http://127\.0\.0\.1:9090") as caught:
            homes.take(tmp_path)
        assert "titan down" in caught.value.hint
        held.kill()
    assert homes.holder(tmp_path) is None
    lock = homes.take(tmp_path)
    assert lock.previous() == Holder(1234, "http://127.0.0.1:9090", ready=True)
    lock.release()


def test_a_shorter_record_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    lock = homes.take(tmp_path)
    lock.record(Holder(4_000_000, "http://[0000:0000::1]:65535", ready=True))
    lock.record(Holder(1, "http://127.0.0.1:1"))
    assert lock.previous() == Holder(1, "http://127.0.0.1:1")
    lock.release()


def test_a_foreign_lock_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("not ours")
    lock = homes.take(tmp_path)
    assert lock.previous() is None
    assert homes.holder(tmp_path) == Holder(pid=0, url="")
    with pytest.raises(Conflict, match="an unknown process holds its lock"):
        homes.take(tmp_path)
    lock.release()


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("foreign")
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Invalid, match="cannot be Titan's home: lock:"):
        homes.take(tmp_path)
    assert (tmp_path / "elsewhere").read_text() == "foreign"


def test_children_of_a_dead_holder_are_waited_for_and_others_are_not(tmp_path: Path) -> None:
    def process(*words: str) -> subprocess.Popen[bytes]:
        # Popen returns inside the exec, while the command line may still be empty: an echo tells that it is there.
        cat = subprocess.Popen(
            ["/bin/cat", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"here\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"here\n"
        return cat

    with process("-", str(tmp_path)) as ours, process("-") as foreign:
        dead = Holder(1, "", children=(ours.pid, foreign.pid, 2**22 - 1))
        with pytest.raises(Conflict, match=f"left processes on {tmp_path}: {ours.pid}\n"):
            homes.wait_for_children(dead, tmp_path, patience_s=0.0)
        ours.kill()
        homes.wait_for_children(dead, tmp_path, patience_s=30.0)
        foreign.kill()
