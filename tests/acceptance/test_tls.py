"""titan up with TLS on one machine: clients, the local worker and its jobs need no setting."""

import datetime as dt
import hashlib
import json
import ssl
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, titan
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


def test_from_another_home_each_command_is_told_whom_to_trust(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home", "--listen", "127.0.0.1:0", "--tls", "--workers", "0")
    try:
        cluster.start()
        ca = cluster.home / "tls" / "ca.pem"
        own(tmp_path, ["127.0.0.1"], dt.datetime.now(dt.UTC))
        record = json.loads((cluster.home / "endpoint.json").read_text())
        elsewhere = {"TITAN_URL": cluster.url, "TITAN_TOKEN": (cluster.home / "token").read_text().strip()}

        def code(*words: str) -> int:
            return titan(tmp_path / "other", *words, cwd=ca.parent, **elsewhere).returncode

        assert code("ps") == 4
        assert code("ps", "--ca", str(tmp_path / "tls" / "ca.pem")) == 4
        assert [code(*words, "--ca", "ca.pem") for words in (["ps"], ["worker", "ls"], ["store", "ls"])] == [0, 0, 0]
        assert code("ps", "--ca", pem_fingerprint(ca)) == 0
        assert code("ps", "--ca", "nowhere.pem") == 6
        assert record["ca"] == str(ca)
    finally:
        assert cluster.stop() == 0


def pem_fingerprint(path: Path) -> str:
    return f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text())).hexdigest()}"
