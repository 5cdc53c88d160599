"""Writes docs/reference/errors.md from titan_sdk.errors: .venv/bin/python -m tests.sdk.errors_page"""

import inspect

from tests.unit.sources import ROOT
from titan_sdk import errors

PAGE = ROOT / "docs" / "reference" / "errors.md"


def tree() -> str:
    """Return the tree as it is drawn in the module's docstring."""
    lines = inspect.cleandoc(errors.__doc__ or "").splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    "))


def parents(kind: type) -> list[str]:
    """Return the builtin exceptions that also catch `kind`."""
    return [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins" and base is not object]


def render() -> str:
    """Return the page."""
    rows = [
        f"| `{code}` | {kind.__name__} | {'' if code in errors.BY_THE_CLIENT else status} | {meaning} |"
        for code, (kind, status, meaning) in errors.BY_CODE.items()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            "Made from `src/titan_sdk/errors.py`; a test compares the two. Do not edit it here.",
            "",
            "Every error is an exception of one tree, and never a text in a value:",
            "",
            "```text",
            tree(),
            "```",
            "",
            "`str(error)` says what happened, why, and what to do next. The parts are `error.code`, `error.message`,",
            "`error.hint`, `error.problems` (each with `code`, `message` and, where known, `job_id` and `field`),",
            "`error.retry_after_s` and `error.request_id`.",
            "",
            "The HTTP API answers an error as `application/problem+json` with the fields `code`, `title`, `status`,",
            "`detail`, `hint`, `problems`, `request_id` and, where asking again helps, `retry_after_s` (also as the",
            "header `Retry-After`). Codes are stable; new ones may come, so treat an unknown one as a `TitanError`.",
            "",
            "| code | exception | HTTP | when |",
            "|---|---|---:|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
