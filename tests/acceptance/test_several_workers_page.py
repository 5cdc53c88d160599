"""docs/how-to/several-workers.md: every command on it, in its order."""

import re
import shlex
from pathlib import Path

from tests.acceptance.cluster import Cluster, JoinedWorker
from tests.unit.sources import ROOT

PAGE = ROOT / "docs" / "how-to" / "several-workers.md"


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, text in re.findall(r"^`([a-z]+\.py)`:\n\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    cluster = Cluster(tmp_path / "home", "--port", "0", "--slots", "1")
    joined: list[JoinedWorker] = []
    seen = []
    try:
        cluster.start()
        for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, told = part.partition("\n")
                program, *words = shlex.split(line)
                assert program == "titan"
                seen.append(" ".join(words[:2]))
                if words[:2] == ["worker", "--join"]:
                    assert words[3] == "--name"
                    joined.append(JoinedWorker(cluster.home, cluster.url, words[4], *words[5:]).wait_connected())
                    continue
                done = cluster.titan(*words, cwd=tmp_path)
                assert done.returncode == 0, (line, done.stderr)
                assert set(told.splitlines()) <= set(done.stdout.decode().splitlines()), line
        assert seen == ["worker --join", "worker ls", "run --requirement", "run --requirement", "worker drain"]
    finally:
        for worker in joined:
            worker.stop()
        cluster.stop()
