"""Every bad input has its text: what is wrong, why, and what to do next.

`python -m tests.golden --write` writes them anew; the diff is then read.
"""

import re
from collections.abc import Iterator

import pytest

from tests.golden import frames, requests
from tests.golden.process import RealMaster
from tests.golden.sections import sections
from tests.golden.table import TEXTS, Section, read, written

NAMES = ("submission", "ids", "store", "artifacts", "wire", "sdk", "cli", "config", "start")
INPUTS_MIN = 150
ROUNDS = 3
GROWTH_BYTES_MAX = 20 * 1024 * 1024
# The first line: a status, class, close or exit code.
CODE = re.compile(r"(4\d\d [a-z_]+|[A-Z]\w+ [a-z_]+|close \d{4}|exit [1-9]\d*)")
# A sentence that says what to do begins so, behind a colon, a semicolon or a comma.
NEXT = re.compile(
    r"(?:[:;,?]| so| or) (?:give|use|send|say|leave|name|choose|flatten|put|PUT|take|ask|get|count|delete|add|announce|"
    r"correct|cancel|keep|install|enrol|see|begin|stop|start|chmod|remove|split|upload|Set)\b"
)
OURS = re.compile(
    r"/work/|/tmp/|/usr/|site-packages|Traceback|\.py\"|line \d+, in|sqlite3\.|_ssl|SELECT |INSERT |UPDATE |Errno|"
    r"Expected `| object at 0x|msgspec|msgpack\.|litestar"
)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMaster]:
    with RealMaster(tmp_path_factory.mktemp("golden")) as running:
        yield running
    assert running.tracebacks() == ""


@pytest.fixture(scope="module")
def asked(master: RealMaster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Section]:
    return {section.name: section for section in sections(master, tmp_path_factory.mktemp("asked"))}


@pytest.mark.parametrize("name", NAMES)
def test_each_bad_input_is_answered_with_its_text(asked: dict[str, Section], name: str) -> None:
    found = list(asked[name].entries())
    assert written(found).splitlines() == (TEXTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    unnamed = [each for each in found if each.names not in each.answer]
    assert unnamed == []


def test_there_are_enough_of_them_and_each_is_there_once() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == set(NAMES)
    sent = [(name, each) for name in NAMES for each, _ in read(TEXTS / f"{name}.txt")]
    assert len(sent) >= INPUTS_MIN
    assert len(set(sent)) == len(sent)


@pytest.mark.parametrize("name", NAMES)
def test_each_text_has_a_code_says_what_next_and_nothing_of_ours(name: str) -> None:
    for sent, answer in read(TEXTS / f"{name}.txt"):
        code, _, text = answer.partition("\n")
        assert CODE.fullmatch(code), (sent, answer)
        said, _, hint = text.partition("\nNext: ")
        assert said, sent
        assert hint or all(NEXT.search(line) for line in said.splitlines()[-1:]), (sent, answer)
        # A path that the caller itself named may stand there.
        assert [word for word in OURS.findall(text) if word not in sent] == [], (sent, answer)
        assert all(character.isprintable() or character == "\n" for character in text), (sent, answer)


def test_the_master_grows_by_less_than_20_mb_over_all_of_them(master: RealMaster) -> None:
    def ask_all() -> None:
        for bad in (requests.SUBMISSIONS, requests.IDS, requests.STORE, requests.ARTIFACTS):
            assert list(requests.entries(master, bad))
        assert list(frames.entries(master))

    ask_all()
    before = master.rss_bytes()
    for _ in range(ROUNDS):
        ask_all()
    assert master.rss_bytes() - before < GROWTH_BYTES_MAX
