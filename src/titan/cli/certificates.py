"""The certificates of one home: an authority of its own, and below it one for the server.

HOME/tls/ca.pem is what others trust, so it stays for ten years, and with it its fingerprint. The server's certificate
is made anew when it does not name an address that is listened on, or has less than a month left. Keys are 0600 in a
folder of 0700; the authority may sign nothing but servers' certificates below it.
"""

import contextlib
import datetime as dt
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from titan.model.private import refuse_exposed
from titan_sdk.errors import Invalid

FOLDER = "tls"
CA_DAYS = 3650
SERVER_DAYS = 397
RENEW_DAYS = 30
# A clock of another machine may be a little behind.
BACKDATED = dt.timedelta(hours=1)
Key = ec.EllipticCurvePrivateKey


class Files(NamedTuple):
    """What the Master is given, and whom its clients trust.

    `ca`: on this machine, a file or a fingerprint; `fingerprint`: on others, "" for whom they trust already.
    """

    certificate: Path
    key: Path
    ca: str
    fingerprint: str


def own(home: Path, names: Sequence[str], now: dt.datetime) -> Files:
    """Return the home's own certificate for `names` (host names and addresses), made where it is missing.

    Raises Invalid when others may know its keys.
    """
    folder = home / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    ca_file, server_file, server_key = folder / "ca.pem", folder / "server.pem", folder / "server.key"
    for key_file in (folder / "ca.key", server_key):
        if key_file.exists():
            hint = (
                f"rm -r {folder}, start again and let every machine join again; chmod 600 {key_file} if nobody saw it"
            )
            refuse_exposed(key_file, hint)
    authority = _kept(ca_file, folder / "ca.key")
    if authority is None:
        authority = _authority(now)
        _write(folder / "ca.key", _pem_of_key(authority[1]))
        _write(ca_file, authority[0].public_bytes(serialization.Encoding.PEM))
    kept = _kept(server_file, server_key)
    if kept is None or not _still_good(kept[0], authority[0], names, now):
        certificate, key = _server(authority, names, now)
        _write(server_key, _pem_of_key(key))
        chain = (certificate, authority[0])
        _write(server_file, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
    return Files(server_file, server_key, str(ca_file), _fingerprint(authority[0]))


def given(certificate: Path, key: Path, now: dt.datetime) -> Files:
    """Return a certificate of the user's own; this machine's clients trust it and no other. Raises Invalid."""
    try:
        shown = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        secret = serialization.load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        raise Invalid(
            f"{error.filename} cannot be read: {error.strerror}",
            hint="--tls-cert takes the certificate with its chain, --tls-key its key, both in PEM",
        ) from None
    except (ValueError, TypeError):
        raise Invalid(
            f"{certificate} and {key} are no certificate and key that can be read",
            hint="give both in PEM, the key without a password",
        ) from None
    if secret.public_key() != shown.public_key():
        raise Invalid(f"{key} is not the key of {certificate}", hint="give the key that the certificate was made for")
    if not shown.not_valid_before_utc <= now <= shown.not_valid_after_utc:
        spans = f"{shown.not_valid_before_utc:%Y-%m-%d} to {shown.not_valid_after_utc:%Y-%m-%d}"
        raise Invalid(f"{certificate} is good from {spans}, and not now", hint="renew it, or set the clock")
    refuse_exposed(key, f"have a new certificate made for a new key; chmod 600 {key} if nobody saw it")
    # Its authority is known elsewhere, and vouches for the next certificate as well: nobody else shall pin this one.
    return Files(certificate.absolute(), key.absolute(), _fingerprint(shown), "")


def _fingerprint(certificate: x509.Certificate) -> str:
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def _kept(certificate: Path, key: Path) -> tuple[x509.Certificate, Key] | None:
    """Return what an earlier start made; None when there is nothing, or nothing that fits together."""
    with contextlib.suppress(OSError, ValueError, TypeError, IndexError):
        shown = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        secret = serialization.load_pem_private_key(key.read_bytes(), None)
        if isinstance(secret, Key) and secret.public_key() == shown.public_key():
            return shown, secret
    return None


def _still_good(
    certificate: x509.Certificate, authority: x509.Certificate, names: Sequence[str], now: dt.datetime
) -> bool:
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    left = certificate.not_valid_after_utc - now
    return (
        certificate.issuer == authority.subject
        and left > dt.timedelta(days=RENEW_DAYS)
        and set(_alternatives(names)) <= set(named)
    )


def _authority(now: dt.datetime) -> tuple[x509.Certificate, Key]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Titan CA of {socket.gethostname()[:32]} {os.urandom(4).hex()}")
    builder = _builder(name, name, key, now, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    return builder.sign(key, hashes.SHA256()), key


def _server(
    authority: tuple[x509.Certificate, Key], names: Sequence[str], now: dt.datetime
) -> tuple[x509.Certificate, Key]:
    ca, ca_key = authority
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name("Titan Master"), ca.subject, key, now, SERVER_DAYS)
    for extension, critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName(_alternatives(names)), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(ca_key, hashes.SHA256()), key


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, now: dt.datetime, days: int) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATED).not_valid_after(now + dt.timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _pem_of_key(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """Put `data` there whole, readable by nobody else. Call with the home's lock taken."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
