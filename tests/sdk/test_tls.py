"""An https address: certificate and name are checked, and TITAN_CA or ca= says whom to trust: a file, or a print."""

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.sdk.conftest import Connect
from tests.sdk.double import Double, answer
from tests.unit.sources import read_tree
from titan.cli import certificates
from titan.cli.certificates import Files
from titan_sdk import Invalid, Unreachable

NOW = dt.datetime.now(dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=500)


class TlsDouble(Double):
    def __init__(self, files: Files) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.certificate, files.key)
        super().__init__(answer({"busy": 0}))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _serve(self, connected: socket.socket, number: int) -> None:
        try:
            secured = self.context.wrap_socket(connected, server_side=True)
        except OSError:
            connected.close()
        else:
            self._sockets.append(secured)
            super()._serve(secured, number)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return certificates.own(tmp_path, ["127.0.0.1"], NOW)


@pytest.fixture
def master(files: Files) -> Iterator[TlsDouble]:
    with TlsDouble(files) as double:
        yield double


def test_what_listens_without_tls_is_called_that(connect: Connect, files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer_in_the_clear() -> None:
            with suppress(OSError):
                while True:
                    there = plain.accept()[0]
                    there.recv(4096)
                    there.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    there.close()

        serving = threading.Thread(target=answer_in_the_clear)
        serving.start()
        url = f"https://127.0.0.1:{plain.getsockname()[1]}"
        with pytest.raises(Unreachable) as refused:
            connect(url=url, ca=files.ca).stats()
        plain.shutdown(socket.SHUT_RDWR)
        serving.join()
    assert refused.value.message.endswith(f"{url} (from url=): what listens there does not speak TLS")
    assert refused.value.hint == "give its address with http://"


def test_s10_the_named_authority_is_trusted_and_nobody_else(
    master: TlsDouble, files: Files, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable, match="not trusted here: self-signed certificate in certificate chain") as refused:
        connect(url=master.url).stats()
    assert "TITAN_CA" in refused.value.hint
    monkeypatch.setenv("TITAN_CA", files.ca)
    client = connect(url=master.url)
    assert client.stats() == client.stats() == {"busy": 0}
    assert len(master.requests) == 2
    assert {request.connection for request in master.requests} == {master.requests[0].connection}


@pytest.mark.parametrize("way", ["file", "authority's fingerprint", "its own fingerprint"])
def test_s10_a_file_or_a_fingerprint_says_whom_to_trust(
    master: TlsDouble, files: Files, connect: Connect, way: str
) -> None:
    own = certificates.given(files.certificate, files.key, NOW).ca
    ca = {"file": files.ca, "authority's fingerprint": files.fingerprint.upper(), "its own fingerprint": own}[way]
    assert connect(url=master.url, ca=ca).stats() == {"busy": 0}


def test_s10_another_fingerprint_is_refused_and_nothing_is_sent(
    master: TlsDouble, files: Files, connect: Connect
) -> None:
    other = "sha256:" + "0" * 64
    with pytest.raises(Unreachable, match=f"not the Master with the fingerprint {other}") as refused:
        connect(url=master.url, ca=other).stats()
    assert files.fingerprint in refused.value.message
    assert "join-token" in refused.value.hint
    assert master.requests == []


@pytest.mark.parametrize("ca", ["sha256:", "sha256:12", "sha256:" + "g" * 64, "/no/such/file.pem"])
def test_s10_a_ca_that_cannot_be_used_is_refused_at_once(master: TlsDouble, connect: Connect, ca: str) -> None:
    with pytest.raises(Invalid) as refused:
        connect(url=master.url, ca=ca).stats()
    assert "sha256:" in refused.value.hint
    assert master.requests == []


@pytest.mark.parametrize("pinned", [False, True])
def test_s10_another_name_than_the_certificates_is_refused(tmp_path: Path, connect: Connect, *, pinned: bool) -> None:
    files = certificates.own(tmp_path, ["titan.example.org"], NOW)
    with TlsDouble(files) as master, pytest.raises(Unreachable, match="IP address mismatch"):
        connect(url=master.url, ca=files.fingerprint if pinned else files.ca).stats()


@pytest.mark.parametrize("pinned", [False, True])
def test_s10_a_certificate_that_has_expired_is_refused(tmp_path: Path, connect: Connect, *, pinned: bool) -> None:
    files = certificates.own(tmp_path, ["127.0.0.1"], LONG_AGO)
    with TlsDouble(files) as master, pytest.raises(Unreachable, match="certificate has expired"):
        connect(url=master.url, ca=files.fingerprint if pinned else files.ca).stats()


def test_s10_below_a_pinned_certificate_that_is_no_authority_nothing_is_trusted(
    tmp_path: Path, connect: Connect
) -> None:
    # The pinned certificate is shown beside another server's: its fingerprint must not vouch for that one.
    ours, theirs = (certificates.own(tmp_path / name, ["127.0.0.1"], NOW) for name in ("ours", "theirs") if
                    (tmp_path / name).mkdir() is None)  # fmt: skip
    pin = certificates.given(ours.certificate, ours.key, NOW).ca
    theirs.certificate.write_bytes(theirs.certificate.read_bytes() + ours.certificate.read_bytes())
    with TlsDouble(theirs) as master, pytest.raises(Unreachable, match="not trusted here"):
        connect(url=master.url, ca=pin).stats()


def test_s10_certificates_are_left_unchecked_in_one_place_that_sends_nothing() -> None:
    off = ("CERT_NONE", "check_hostname = False", "_create_unverified_context", "verify=False")
    found = [source.path for source in read_tree("src") for word in off if word in source.text]
    assert found == ["src/titan_sdk/trust.py"] * 2
