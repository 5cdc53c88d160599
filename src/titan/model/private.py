"""Secrets in files: what others than the owner can read counts as known to them."""

from pathlib import Path

from titan_sdk.errors import Invalid


def refuse_exposed(path: Path, hint: str) -> None:
    """Raise Invalid when the secret in `path` can be read or written by others; `hint` says what to do then."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Invalid(f"{path} is open to others (mode {mode:o}), so they may know what is in it", hint=hint)
