"""How a worker on another machine is let in: an enrolment, shown once by the Master, becomes its own credential.

The enrolment comes by TITAN_ENROLMENT, where no list of processes shows it. What it brings stays in the worker's
folder, for the worker's user alone: `credential`, and `ca.pem` where a fingerprint named the Master's authority. So the
pasted line may be used again, by an init system or after a reboot: the enrolment is refused then, and the credential
serves.

The worker makes its credential itself and keeps it before the Master hears of its hash. If the answer is lost, or the
worker dies before it comes, the enrolment is used up and the credential counts: knocking with it tells.
"""

import contextlib
import json
import os
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from titan.model.private import refuse_exposed
from titan.model.tokens import FRESH_LINE, LENGTH, PREFIX, credential_id, hash_of, make
from titan_sdk.discovery import PORTS, Finder
from titan_sdk.errors import Conflict, Invalid, NotFound, TitanError, Unauthenticated, Unreachable
from titan_sdk.transport import Transport
from titan_sdk.trust import PINNED, pinned

CREDENTIAL = "credential"
MADE = "credential.made"
CA = "ca.pem"
ANSWER_S = 30.0


class Admission(NamedTuple):
    """With what a worker knocks, and whom it trusts. `is_own`: the token is its own, so a refusal is for good."""

    token_file: Path
    ca: str
    is_own: bool


def admit(
    folder: Path, name: str, urls: Sequence[str], enrolment: str, ca: str, token_file: Path, say: Callable[[str], None]
) -> Admission:
    """Enrol if there is an enrolment, and return what to knock with: the folder's credential, else `token_file`.

    `ca` "" means what an enrolment left in the folder, else the system's authorities. Raises TitanError when the worker
    is not let in.
    """
    credential = folder / CREDENTIAL
    if enrolment:
        try:
            ca = _kept_ca(folder, urls, ca)
            _enrol(name, urls, enrolment, _made(folder / MADE, enrolment), ca)
            (folder / MADE).replace(credential)
        except (Unauthenticated, Conflict) as error:
            (folder / MADE).unlink(missing_ok=True)
            if not credential.exists():
                raise
            say(f"{error.message}; it has a credential of its own and goes on with that")
    if not credential.exists():
        if token_file.exists():
            refuse_exposed(token_file, f"revoke that token and make another; chmod 600 {token_file} if nobody saw it")
        return Admission(token_file, ca, is_own=False)
    again = f"titan worker remove {name} at the Master, then a fresh line; chmod 600 {credential} if nobody saw it"
    refuse_exposed(credential, again)
    known = folder / CA
    return Admission(credential, ca or (str(known) if known.exists() else ""), is_own=True)


def _made(path: Path, enrolment: str) -> str:
    """Return the credential that `enrolment` is to become, made at the first try and kept for the next."""
    token_id = credential_id(enrolment.split(".")[1] if enrolment.count(".") == 2 else enrolment)
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text("ascii").strip()
        if kept.startswith(f"{PREFIX}{token_id}.") and len(kept) == LENGTH:
            return kept
    made = make(token_id)
    _keep(path, made.text.encode() + b"\n")
    return made.text


def _enrol(name: str, urls: Sequence[str], enrolment: str, made: str, ca: str) -> None:
    body = json.dumps({"name": name, "sha256": hash_of(made).hex()}).encode()
    try:
        _call(urls, enrolment, ca, "POST", "workers/enrol", body)
    except Unauthenticated as error:
        if _counts(urls, made, ca):
            return
        raise Unauthenticated(
            "the Master does not take this enrolment: it was used, is over, or was made by another Master",
            hint=FRESH_LINE,
        ) from error


def _counts(urls: Sequence[str], credential: str, ca: str) -> bool:
    """Say whether the Master knows the credential: an answer to an earlier try may have been lost."""
    try:
        _call(urls, credential, ca, "GET", f"blobs/{'0' * 64}")
    except Unauthenticated:
        return False
    except NotFound:
        pass
    return True


def _call(urls: Sequence[str], token: str, ca: str, method: str, path: str, body: bytes | None = None) -> None:
    transport = Transport(Finder(url=",".join(urls), token=token, ca=ca or None), timeout_s=ANSWER_S)
    try:
        transport.call(method, path, body=body)
    finally:
        transport.close()


def _kept_ca(folder: Path, urls: Sequence[str], ca: str) -> str:
    """Put the authority that a fingerprint names beside the credential: no later handshake has to ask for it."""
    if not ca.lower().startswith(PINNED):
        return ca
    parts = urlsplit(urls[0])
    if parts.scheme != "https":
        raise Invalid(
            "a fingerprint is of a certificate, and this address has none", hint="join by an https:// address"
        )
    host, port = parts.hostname or "", parts.port or PORTS["https"]
    try:
        certificate, is_server = pinned(ca, host, port, ANSWER_S)
    except TitanError:
        raise
    except OSError as error:
        raise Unreachable(
            f"no Titan Master answered at {urls[0]}: {error.strerror or error}",
            hint="is it up, and may this machine reach that port?",
        ) from error
    if is_server:
        return ca  # the server's own: nothing it could vouch for
    _keep(folder / CA, ssl.DER_cert_to_PEM_cert(certificate).encode())
    return str(folder / CA)


def _keep(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
