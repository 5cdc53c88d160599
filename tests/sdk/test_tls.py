"""An https address: the certificate is checked, and TITAN_CA names whom to trust."""

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.sdk.conftest import Connect
from tests.sdk.double import Double, answer
from titan_sdk import Unreachable

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl makes the certificate")


class TlsDouble(Double):
    def __init__(self, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        super().__init__(answer({"busy": 0}))

    def _serve(self, connected: socket.socket, number: int) -> None:
        try:
            secured = self.context.wrap_socket(connected, server_side=True)
        except OSError:
            connected.close()
        else:
            self._sockets.append(secured)
            super()._serve(secured, number)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    path = tmp_path / "certificate.pem"
    assert OPENSSL is not None
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=titan", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return path


def test_the_named_authority_is_trusted_and_nobody_else(
    certificate: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsDouble(certificate) as master:
        url = f"https://127.0.0.1:{master.port}"
        with pytest.raises(Unreachable, match="certificate verify failed"):
            connect(url=url).stats()
        monkeypatch.setenv("TITAN_CA", str(certificate))
        client = connect(url=url)
        assert client.stats() == client.stats() == {"busy": 0}
        with pytest.raises(Unreachable, match="certificate"):
            connect(url=f"https://localhost:{master.port}").stats()
        assert len(master.requests) == 2
        assert {request.connection for request in master.requests} == {master.requests[0].connection}
