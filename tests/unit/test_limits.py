"""Limits: one place, a unit in each name, an operator's override checked before anything starts."""

import dataclasses
import re

import pytest

from tests.unit.sources import ROOT
from titan.model.limits import DEFAULT_LIMITS, Limits

FIELDS = dataclasses.fields(Limits)
UNITS = {
    "jobs", "edges", "chars", "parents", "tags", "bytes", "inline", "depth", "many", "waits", "workers", "s", "ring",
    "rows", "tokens", "versions", "artifacts", "transfers", "refusals", "days", "priority", "retries", "ms",
}  # fmt: skip


def test_nothing_set_means_the_defaults() -> None:
    assert Limits.load({}) == DEFAULT_LIMITS == Limits.load({"PATH": "/bin", "TITAN_HOME": "/x"})


def test_an_override_changes_one_limit_and_keeps_its_type() -> None:
    loaded = Limits.load({"TITAN_LIMIT_WAIT_S_MAX": "2.5", "TITAN_LIMIT_DAG_JOBS_MAX": "7"})
    assert loaded == dataclasses.replace(DEFAULT_LIMITS, wait_s_max=2.5, dag_jobs_max=7)
    assert type(loaded.dag_jobs_max) is int


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize("text", ["0", "-1", "", "many", "nan", "inf"])
def test_a_value_that_is_no_positive_number_is_refused(field: "dataclasses.Field[int]", text: str) -> None:
    variable = f"TITAN_LIMIT_{field.name.upper()}"
    with pytest.raises(ValueError, match=re.escape(f"{variable}={text!r}")):
        Limits.load({variable: text})


def test_a_mistyped_limit_is_refused_rather_than_ignored() -> None:
    with pytest.raises(ValueError, match=r"TITAN_LIMIT_DAG_JOB_MAX is no limit.*TITAN_LIMIT_DAG_JOBS_MAX"):
        Limits.load({"TITAN_LIMIT_DAG_JOB_MAX": "5"})


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_limit_is_positive_and_says_its_unit(field: "dataclasses.Field[int]") -> None:
    assert getattr(DEFAULT_LIMITS, field.name) > 0
    words = field.name.removesuffix("_max").removesuffix("_min").split("_")
    assert words[-1] in UNITS, f"{field.name} does not end with what it counts"


def test_the_agreed_figures() -> None:
    agreed = {
        "dag_jobs_max": 100_000,
        "dag_edges_max": 500_000,
        "args_bytes_max": 131_072,
        "env_bytes_max": 32_768,
        "submit_body_bytes_max": 67_108_864,
        "frame_bytes_max": 1_048_576,
        "output_bytes_max": 262_144,
        "json_depth_max": 32,
        "store_key_bytes_max": 512,
        "store_value_bytes_max": 1_048_576,
        "log_job_bytes_max": 1_073_741_824,
        "waits_max": 1_000,
        "workers_max": 5_000,
        "wait_s_max": 25.0,
    }
    assert {name: getattr(DEFAULT_LIMITS, name) for name in agreed} == agreed


def test_the_reference_page_lists_every_limit_with_its_default() -> None:
    page = (ROOT / "docs" / "reference" / "limits.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d,.]+) \|", page, re.MULTILINE)
    assert rows == [(field.name, f"{getattr(DEFAULT_LIMITS, field.name):,}") for field in FIELDS]
