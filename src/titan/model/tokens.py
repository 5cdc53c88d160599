"""A token of a person, a program or a worker, as it is kept: everything but the token itself."""

import msgspec

from titan.model.roles import Role


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
