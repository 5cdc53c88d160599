"""Ids and names: one pattern for jobs and tags, random hex for runs, free text for display names."""

import re
import unicodedata

JOB_ID_CHARS_MAX = 128
VALUE_CHARS_MAX = 60
RUN_ID_PATTERN = re.compile(r"[0-9a-f]{32}")
RUN_PREFIX_DIGITS_MIN = 4
RUN_PREFIX_PATTERN = re.compile(rf"[0-9a-f]{{{RUN_PREFIX_DIGITS_MIN},32}}")
SHA256_PATTERN = re.compile(r"[0-9a-f]{64}")
LEGACY_PREFIX = "DAG-"

_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BAD_ID_CHARACTER = re.compile(r"[^A-Za-z0-9._-]")


def job_id_problem(text: str, what: str = "job id") -> str | None:
    """Say what is wrong with `text` as a job id, tag or file name in the registry; None when nothing is."""
    if _JOB_ID.fullmatch(text):
        return None
    if not text:
        return f"{what} is empty: give 1 to {JOB_ID_CHARS_MAX} characters of A-Z a-z 0-9 . _ -"
    if len(text) > JOB_ID_CHARS_MAX:
        return f"{what} {shown(text)} has {len(text)} characters: give at most {JOB_ID_CHARS_MAX}"
    bad = _BAD_ID_CHARACTER.search(text)
    if bad is None:
        return f"{what} {shown(text)} begins with {text[0]!r}: begin with a letter or a digit"
    return f"{what} {shown(text)} has the character {bad.group()!a}: use letters, digits, '.', '_' and '-'"


def name_problem(text: str, chars_max: int, what: str = "DAG name") -> str | None:
    """Say what is wrong with `text` as a display name; None when nothing is."""
    if not 1 <= len(text) <= chars_max:
        return f"{what} has {len(text)} characters: give 1 to {chars_max}"
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI:
            return f"{what} has the control character {character!a}: leave it out"
    return None


def shown(text: str, chars_max: int = 60) -> str:
    """Return `text` quoted and shortened for an error message, with control characters escaped."""
    return ascii(text if len(text) <= chars_max else text[: chars_max - 3] + "...")


def shown_value(value: object) -> str:
    """Return a decoded JSON value for an error message: as JSON, shortened, with control characters escaped."""
    if isinstance(value, str):
        return shown(value)
    import msgspec  # a command that only looks pays nothing for it

    text = msgspec.json.encode(value).decode()
    return ascii(text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 3] + "...")[1:-1]


def one_line(text: str) -> str:
    """Return `text` as one harmless line: control characters, newlines and marks of direction escaped."""
    if text.isprintable() and not _UNSAFE.search(text):
        return text
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], text)


_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
