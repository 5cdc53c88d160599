"""The name of a worker that nobody named: the host's with a number, found again, and never another's."""

import socket
from pathlib import Path

import pytest

from titan.worker.process import NameTaken, take_name, take_other_name


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box [a].example.org")


def test_each_process_of_a_home_has_the_next_number(tmp_path: Path) -> None:
    first, second = take_name(tmp_path, ""), take_name(tmp_path, "")
    assert (first.name, second.name) == ("box--a-1", "box--a-2")
    first.close()
    assert take_name(tmp_path, "").name == "box--a-1"
    with pytest.raises(NameTaken, match="box--a-2 is running"):
        take_name(tmp_path, "box--a-2")


@pytest.mark.parametrize("kept", ["credential", "credential.made"])
def test_a_name_with_a_suffix_is_found_again_by_its_credential(tmp_path: Path, kept: str) -> None:
    for foreign in ("box--a-1-zzzz", "box--a-1-3fa21", "other-1-3fa2"):
        (tmp_path / "workers" / foreign).mkdir(parents=True)
        (tmp_path / "workers" / foreign / kept).touch()
    other = take_other_name(tmp_path, take_name(tmp_path, ""))
    assert other.name.startswith("box--a-1-")
    assert other.folder == tmp_path / "workers" / other.name
    other.close()
    assert take_name(tmp_path, "").name == "box--a-1", "it was not let in under that name"
    (other.folder / kept).touch()
    again = take_name(tmp_path, "")
    assert again.name == other.name
    assert take_name(tmp_path, "").name == "box--a-2", "a second process gets no name that another machine has"
