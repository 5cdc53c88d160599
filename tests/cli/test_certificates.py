"""The home's own authority and the server's certificate below it."""

import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from titan.cli import certificates
from titan.cli.certificates import Files, given, own
from titan_sdk.errors import Invalid
from titan_sdk.trust import fingerprint

NOW = dt.datetime.now(dt.UTC)


def names_of(files: Files) -> set[str]:
    shown = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
    named = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in named}


def test_a_second_start_finds_what_the_first_made(tmp_path: Path) -> None:
    first = own(tmp_path, ["127.0.0.1", "titan.test"], NOW)
    made = first.certificate.read_bytes()
    assert names_of(first) == {"127.0.0.1", "titan.test"}
    assert own(tmp_path, ["titan.test"], NOW) == first
    assert first.certificate.read_bytes() == made
    assert fingerprint(first.fingerprint.upper()) == first.fingerprint


@pytest.mark.parametrize(
    ("names", "days"), [(["10.0.0.9"], 0), (["127.0.0.1"], certificates.SERVER_DAYS - certificates.RENEW_DAYS + 1)]
)
def test_another_address_or_age_makes_a_new_certificate_below_the_same_authority(
    tmp_path: Path, names: list[str], days: int
) -> None:
    first = own(tmp_path, ["127.0.0.1"], NOW)
    made = first.certificate.read_bytes()
    again = own(tmp_path, names, NOW + dt.timedelta(days=days))
    assert again == first
    assert again.certificate.read_bytes() != made
    assert names_of(again) == set(names)


def test_s23_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    own(tmp_path, ["127.0.0.1"], NOW)
    folder = tmp_path / "tls"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("ca.pem", "ca.key", "server.pem", "server.key"), 0o600
    )
    (folder / "server.key").chmod(0o644)
    with pytest.raises(Invalid, match=r"server\.key is open to others"):
        own(tmp_path, ["127.0.0.1"], NOW)


def test_what_was_torn_is_made_anew(tmp_path: Path) -> None:
    first = own(tmp_path, ["127.0.0.1"], NOW)
    (tmp_path / "tls" / "server.key").write_bytes(b"torn")
    again = own(tmp_path, ["127.0.0.1"], NOW)
    assert again.fingerprint == first.fingerprint
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(again.certificate, again.key)


def test_a_certificate_of_ones_own_is_pinned_here_and_checked(tmp_path: Path) -> None:
    made = own(tmp_path, ["127.0.0.1"], NOW)
    taken = given(made.certificate, made.key, NOW)
    assert taken.ca.startswith("sha256:")
    assert taken.ca != made.fingerprint
    assert taken.fingerprint == ""
    with pytest.raises(Invalid, match="is not the key of"):
        given(made.certificate, tmp_path / "tls" / "ca.key", NOW)
    with pytest.raises(Invalid, match="are no certificate and key"):
        given(made.key, made.key, NOW)
    with pytest.raises(Invalid, match="cannot be read"):
        given(tmp_path / "none.pem", made.key, NOW)
    with pytest.raises(Invalid, match="and not now"):
        given(made.certificate, made.key, NOW + dt.timedelta(days=400))
    made.key.chmod(0o640)
    with pytest.raises(Invalid, match="is open to others") as refused:
        given(made.certificate, made.key, NOW)
    assert refused.value.hint.endswith(f"chmod 600 {made.key} if nobody saw it")
