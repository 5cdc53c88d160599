"""The document and the page describe what is served, no more and no less."""

import re
from pathlib import Path
from typing import Any

from tests.api import roles_page
from tests.api.master import Master
from tests.api.test_gate import served
from titan.master.roles import ALLOWED
from titan.model.roles import Role

LINK = {("GET", "/api/v1/worker", "worker.link")}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"


def document(master: Master) -> Any:
    answer = master.get("/openapi.json")
    assert answer.status == 200
    return answer.json


def test_the_document_has_every_route_and_no_other(master: Master) -> None:
    described = {
        (method.upper(), path, operation["operationId"])
        for path, methods in document(master)["paths"].items()
        for method, operation in methods.items()
    }
    assert described == served(master)


def test_every_reference_leads_somewhere_and_every_schema_is_used(master: Master) -> None:
    text = master.get("/openapi.json").body.decode()
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert used == set(document(master)["components"]["schemas"])


def test_operations_say_what_they_take_and_who_may_use_them(master: Master) -> None:
    paths = document(master)["paths"]
    listing = paths["/api/v1/runs"]["get"]
    parameters = {each["name"]: each for each in listing["parameters"]}
    assert set(parameters) == {"state", "name", "agent_run_id", "limit", "before"}
    assert parameters["limit"]["schema"] == {"type": "integer", "default": 100}
    submit = paths["/api/v1/runs"]["post"]
    assert set(submit["requestBody"]["content"]) == {"application/json", "application/x-ndjson"}
    assert set(submit["responses"]) == {"200", "201", "default"}
    one = paths["/api/v1/runs/{run}/jobs/{job}"]["get"]
    assert [(each["name"], each["in"], each["required"]) for each in one["parameters"]] == [
        ("run", "path", True), ("job", "path", True),
    ]  # fmt: skip
    assert paths["/api/v1/healthz"]["get"]["security"] == []
    for methods in paths.values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")
            assert operation["x-roles"] == sorted(ALLOWED[operation["operationId"]])


def test_the_page_lists_every_route_with_its_name_and_whether_a_job_may_use_it(master: Master) -> None:
    rows = re.findall(r"^\| `(\w+) (/\S+)` \| `([\w.]+)` \| ([^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = {
        (method, path.removeprefix("/api/v1"), name, "yes" if Role.JOB in ALLOWED[name] else "no")
        for method, path, name in served(master) | LINK
    }
    assert set(rows) == expected


def test_s13_the_page_of_roles_is_made_from_the_table(master: Master) -> None:
    assert roles_page.PAGE.read_text(encoding="utf-8") == roles_page.render(served(master) | LINK), (
        "run: .venv/bin/python -m tests.api.roles_page"
    )
