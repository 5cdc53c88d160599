"""titan up with TLS on one machine: clients, the local worker and its jobs need no setting."""

import datetime as dt
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster
from titan.cli.certificates import own

SCRIPT = """\
from titan_sdk import TitanClient
client = TitanClient()
client.store_put("seen", client.url)
print(client.store_get("seen"))
"""


@pytest.mark.parametrize("given", [False, True])
def test_s1_with_tls_everything_here_works_as_before(tmp_path: Path, *, given: bool) -> None:
    flags = ["--listen", "127.0.0.1:0", "--tls"]
    if given:
        made = own(tmp_path, ["titan.example.org"], dt.datetime.now(dt.UTC))
        flags = ["--port", "0", "--tls-cert", str(made.certificate), "--tls-key", str(made.key)]
    (tmp_path / "job.py").write_text(SCRIPT)
    cluster = Cluster(tmp_path / "home", *flags, "--slots", "1")
    try:
        assert cluster.start().url.startswith("https://127.0.0.1:")
        assert cluster.titan("status").returncode == 0
        done = cluster.titan("run", str(tmp_path / "job.py"))
        assert (done.returncode, done.stdout) == (0, f"{cluster.url}\n".encode()), done.stderr
        plain = cluster.titan("status", TITAN_URL=cluster.url.replace("https", "http"))
        assert plain.returncode == 4
    finally:
        assert cluster.stop() == 0
