"""Writes docs/reference/sdk.md from the SDK's own docstrings: .venv/bin/python -m tests.sdk.sdk_page"""

import inspect
import re

from tests.unit.sources import ROOT
from titan_sdk import Run, TitanClient, TitanJob

PAGE = ROOT / "docs" / "reference" / "sdk.md"
GROUPS = {
    "Submit": ["submit_job", "submit_dag", "submit_yaml", "extend_run"],
    "Observe": [
        "get_run", "list_runs", "list_jobs", "get_job_status", "lookup", "find_job", "fetch_logs", "follow_logs",
        "explain", "list_workers", "stats", "events",
    ],
    "Wait": ["wait", "wait_run"],
    "Act": ["cancel", "retry", "drain_worker"],
    "Store": [
        "store_put", "store_get", "store_delete", "store_incr", "store_cas", "store_sadd", "store_srem",
        "store_smembers", "store_list", "store_watch",
    ],
    "Files": ["upload_file", "deploy_script"],
    "Artifacts": [
        "publish_artifact", "get_artifact", "fetch_artifact", "read_artifact", "list_artifacts", "artifact_versions",
        "delete_artifact",
    ],
    "The client itself": ["url", "close"],
}  # fmt: skip
HANDLE = ["id", "name", "url", "status", "jobs", "wait", "raise_for_status", "logs", "cancel", "retry"]

INTRODUCTION = """\
# The Python SDK

Made from the docstrings of `src/titan_sdk`; a test compares the two. Do not edit it here.

```python
from titan_sdk import TitanClient, TitanJob

client = TitanClient()
run = client.submit_dag("nightly", [
    TitanJob(job_id="extract", filename="etl/extract.py"),
    TitanJob(job_id="train", filename="ml/train.py", parents=["extract"], args=["--epochs", "3"]),
])
run.wait(timeout=600).raise_for_status()
print(client.fetch_logs("train"))
```

It needs the standard library only (`submit_yaml` also PyYAML), and importing it takes a few milliseconds. Every error
is an exception: [errors](errors.md).

## Finding the Master

`TitanClient(host=None, port=None, token=None, url=None, timeout_s=None)`. The first of these that is there counts:

- address: `url=`, or `host=` and `port=`; `TITAN_URL` (several with commas are tried in turn); `TITAN_HOST` and
  `TITAN_PORT`; what `titan up` left in the home; `http://127.0.0.1:9090`;
- token: `token=`; `TITAN_TOKEN`; the home's token file, which is shown only to this machine's loopback addresses and
  to the URL recorded in the home. None is shown to an address that only a `titan.toml` or `pyproject.toml` names, and
  `token=` is an error there: give `url=` as well.

The home is `TITAN_HOME`, else `$XDG_STATE_HOME/titan`, else `~/.local/state/titan`. For an `https` address `TITAN_CA`
names a file of certificates to trust.

## What happens when the Master is away

A client that no Master ever answered gives up after 3 s. One that was answered before asks again for 30 s, inside a
job for 120 s; `timeout_s` replaces all three. A pause that the Master asks for is kept. Whatever changes something
carries an idempotency key which is the same on each resend, so a resend never counts twice.

In a job's main process `submit_*`, `extend_run` and `store_incr` go further: when the job is tried again, the same
calls in the same order are recognised, and give the same child runs and the same numbers. A `store_get` followed by a
`store_put` may count twice when the worker dies between the two; `store_incr` may not.

## Jobs
"""


def first_line(thing: object) -> str:
    """Return the first line of a docstring, without an example that stands on it."""
    return (inspect.getdoc(thing) or "").split("\n", 1)[0].split(" Example:")[0]


def example(thing: object) -> str:
    """Return the example of a docstring. Raises AssertionError when it has none."""
    found = re.search(r"Example: ``(.+?)``", inspect.getdoc(thing) or "", re.DOTALL)
    assert found, f"{thing} has no example"
    return " ".join(found[1].split())


def call(name: str, thing: object) -> str:
    """Return how it is called, without types: `wait(timeout=None)`."""
    if isinstance(thing, property):
        return name
    parameters = [
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
        if each.name != "self"
    ]
    return f"{name}({', '.join(parameters)})"


def table(owner: type, names: list[str]) -> list[str]:
    rows = ["| call | what it does | example |", "|---|---|---|"]
    for name in names:
        thing = inspect.getattr_static(owner, name)
        cells = (f"`{call(name, thing)}`", first_line(thing), f"`{example(thing)}`")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def job() -> list[str]:
    """Return the docstring of TitanJob, its parameters as a list."""
    lines = []
    for line in (inspect.getdoc(TitanJob) or "").splitlines():
        parameter = re.match(r"([a-z_, ]+): (.*)", line)
        if parameter and not line.startswith("Example"):
            names = ", ".join(f"`{name}`" for name in parameter[1].split(", "))
            lines.append(f"- {names}: {parameter[2]}".replace("``", "`"))
        else:
            lines.append(line)
    text = "\n".join(lines)
    return re.sub(r"Example::\n\n    (.*)", r"\n```python\n\1\n```", text).splitlines()


def render() -> str:
    """Return the page."""
    lines = [INTRODUCTION, *job(), "", "## Calls", ""]
    for title, names in GROUPS.items():
        lines += [f"### {title}", "", *table(TitanClient, names), ""]
    return "\n".join([*lines, "## The handle of a run", "", *table(Run, HANDLE), ""])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
