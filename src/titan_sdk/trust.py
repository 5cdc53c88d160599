"""Whom to trust behind an https address: the system's authorities, those in a file, or one fingerprint.

A fingerprint (`sha256:` and 64 hex digits) says which certificate, and the server shows it: a first handshake asks
for its chain, sends nothing, believes nothing, and ends. The certificate of that chain with that SHA-256 is from then
on the only one trusted, and every connection that carries a word of ours is verified against it like against any
other. Whoever pins the server's own certificate has named the server, so no name is compared; below a pinned authority
it is.
"""

from __future__ import annotations

import os

from titan_sdk.errors import Invalid, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any

PINNED = "sha256:"
HEX_DIGITS = frozenset("0123456789abcdef")
_contexts: dict[tuple[str, int], ssl.SSLContext] = {}


def fingerprint(text: str) -> str:
    """Return `text` as ``sha256:`` and 64 hex digits; colons and capitals are as good. Raises Invalid for another."""
    digits = text.strip().lower().removeprefix(PINNED).replace(":", "")
    if len(digits) != 64 or not set(digits) <= HEX_DIGITS:
        raise Invalid(
            "the fingerprint is not the SHA-256 of a certificate", hint="give sha256: and 64 hex digits, all of them"
        )
    return PINNED + digits


def context_for(ca: str, host: str, port: int, timeout_s: float) -> ssl.SSLContext:
    """Return the context that verifies `host`; `ca` is a file, a fingerprint, or "" for the system's authorities.

    Raises Invalid when `ca` cannot be used, Unreachable when the server shows no certificate with that fingerprint, and
    OSError when it does not answer.
    """
    is_pinned = ca.lower().startswith(PINNED)
    key = (ca, 0 if is_pinned or not ca else _changed_ns(ca))
    found = _contexts.get(key)
    if found is None:
        found = _trusting(*pinned(ca, host, port, timeout_s)) if is_pinned else _from_file(ca)
        _contexts[key] = found
    return found


def pinned(wanted: str, host: str, port: int, timeout_s: float) -> tuple[bytes, bool]:
    """Return the certificate (DER) with the fingerprint `wanted` that a server shows, and whether it is its own.

    Raises as `context_for` does.
    """
    import hashlib

    wanted = fingerprint(wanted)
    chain = _chain_of(host, port, timeout_s)
    for place, certificate in enumerate(chain):
        if PINNED + hashlib.sha256(certificate).hexdigest() == wanted:
            return certificate, place == 0
    shown = f"it shows {PINNED}{hashlib.sha256(chain[-1]).hexdigest()}" if chain else "it shows none"
    raise Unreachable(
        f"{host} port {port} is not the Master with the fingerprint {wanted}: {shown}",
        hint="somebody may stand between, or its CA was made anew: compare with the line that "
        "`titan worker join-token` prints at the Master",
    )


def not_verified(where: str, error: Exception) -> Unreachable:
    """Return what a caller is told when the certificate that was shown is not one to trust."""
    why = getattr(error, "verify_message", "") or str(error)
    return Unreachable(
        f"{where} shows a certificate that is not trusted here: {why}",
        hint="say whom to trust: TITAN_CA (or --ca) is the CA's file, or the sha256: fingerprint that titan up prints; "
        "the address must be one that the certificate names",
    )


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _from_file(ca: str) -> ssl.SSLContext:
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise Invalid(
            f"TITAN_CA names {ca!r}, and there are no certificates to read: {error.strerror or error}",
            hint="name a file of certificates in PEM, or give a fingerprint: sha256:...",
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _trusting(certificate: bytes, is_server: bool) -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context(cadata=certificate)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = not is_server
    return context


def _chain_of(host: str, port: int, timeout_s: float) -> list[bytes]:
    """Return the certificates that the server shows, its own first, unverified: nothing else is asked or sent."""
    import socket
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection((host, port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        if hasattr(secured, "get_unverified_chain"):  # Python 3.13
            return list(secured.get_unverified_chain())
        inner: Any = secured._sslobj  # type: ignore[attr-defined]
        return [ssl.PEM_cert_to_DER_cert(shown.public_bytes()) for shown in inner.get_unverified_chain() or ()]
