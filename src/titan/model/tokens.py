"""A token of a person, a program or a worker, as it is kept: everything but the token itself."""

import hashlib
import secrets

import msgspec

from titan.model.roles import Role

PREFIX = "tt."
ID_BYTES = 6
SECRET_BYTES = 32
LENGTH = 59  # tt. + 12 + . + 43
# What Master and worker say to each other of a worker that may not join: a code, and what helps the person.
NAME_TAKEN = "name_taken"
FRESH_LINE = "print a fresh line at the Master: titan worker join-token"


class Made(msgspec.Struct, frozen=True):
    """A fresh token: its id, its text, which is shown once, and the hash that is kept of it."""

    token_id: str
    text: str
    hash: bytes


def make(token_id: str = "") -> Made:
    """Return a fresh token of 256 random bits; its id is random too unless given."""
    token_id = token_id or secrets.token_hex(ID_BYTES)
    text = f"{PREFIX}{token_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
    return Made(token_id, text, hash_of(text))


def hash_of(text: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode()).digest()


def credential_id(enrolment_id: str) -> str:
    """Return the id of the one credential that an enrolment may become; worker and Master each know it."""
    return hashlib.sha256(f"the credential of {enrolment_id}".encode()).hexdigest()[: 2 * ID_BYTES]


class TokenRow(msgspec.Struct, frozen=True, gc=False):
    """One stored token. `hash`: SHA-256 of the whole; `worker`: the one worker it may speak for, "" for none."""

    token_id: str
    name: str
    role: Role
    worker: str
    hash: bytes
    created_ms: int
    created_by: str
    expires_ms: int | None = None
    revoked_ms: int | None = None

    def ended(self, now_ms: int) -> bool:
        """Say whether it counts no more."""
        return self.revoked_ms is not None or (self.expires_ms is not None and self.expires_ms <= now_ms)
