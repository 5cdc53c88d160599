"""What people build on: the names of titan_sdk, held as a list. A change here is a change of the product."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

import titan_sdk
from tests.unit.sources import report

PUBLIC = [
    "Conflict",
    "Denied",
    "FileMissing",
    "Internal",
    "Invalid",
    "NotFound",
    "Run",
    "RunFailed",
    "StorageFull",
    "TimedOut",
    "TitanClient",
    "TitanError",
    "TitanJob",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]

METHODS = {
    "TitanClient": [
        "artifact_versions", "cancel", "close", "delete_artifact", "deploy_script", "drain_worker", "events",
        "explain", "extend_run", "fetch_artifact", "fetch_logs", "find_job", "follow_logs", "get_artifact",
        "get_job_status", "get_run", "list_artifacts", "list_jobs", "list_runs", "list_workers", "lookup",
        "publish_artifact", "read_artifact", "retry", "stats", "store_cas", "store_delete", "store_get",
        "store_incr", "store_list", "store_put", "store_sadd", "store_smembers", "store_srem", "store_watch",
        "submit_dag", "submit_job", "submit_yaml", "upload_file", "url", "wait", "wait_run",
    ],
    "Run": ["cancel", "id", "jobs", "logs", "name", "raise_for_status", "retry", "status", "url", "wait"],
    "TitanError": ["code", "status"],
    "TitanJob": [],
}  # fmt: skip


def members(thing: type) -> dict[str, object]:
    """Return the public attributes of a class and of those of its bases that are ours."""
    ours = [base for base in reversed(thing.__mro__) if base.__module__ != "builtins"]
    return {name: value for base in ours for name, value in vars(base).items() if not name.startswith("_")}


def undocumented(module: ModuleType | SimpleNamespace, names: list[str]) -> Iterator[str]:
    """Yield the public names, and the public methods of classes among them, that have no docstring."""
    for name in names:
        thing = getattr(module, name)
        if not thing.__doc__:
            yield name
        if inspect.isclass(thing):
            for member, value in members(thing).items():
                if (inspect.isroutine(value) or isinstance(value, property)) and not value.__doc__:
                    yield f"{name}.{member}"


def test_the_public_names_are_the_list() -> None:
    assert titan_sdk.__all__ == PUBLIC


def test_the_lists_are_sorted_and_say_nothing_twice() -> None:
    for names in (PUBLIC, *METHODS.values()):
        assert sorted(set(names)) == names


@pytest.mark.parametrize("name", METHODS)
def test_the_public_methods_are_the_list(name: str) -> None:
    assert sorted(members(getattr(titan_sdk, name))) == METHODS[name]


def test_nothing_else_looks_public() -> None:
    visible = {name for name, value in vars(titan_sdk).items() if not name.startswith("_")}
    modules = {name for name in visible if inspect.ismodule(getattr(titan_sdk, name))}
    assert visible - modules == set(PUBLIC)


def test_every_public_name_has_a_docstring() -> None:
    missing = list(undocumented(titan_sdk, titan_sdk.__all__))
    assert not missing, report(missing)


def test_a_missing_docstring_is_found() -> None:
    class Base:
        def silent(self) -> None:
            pass

        def _private(self) -> None:
            pass

    class Documented(Base):
        """A class with one silent method, inherited."""

    def bare() -> None:
        pass

    sample = SimpleNamespace(Documented=Documented, bare=bare)
    assert list(undocumented(sample, ["Documented", "bare"])) == ["Documented.silent", "bare"]


def test_older_programs_import_it_from_where_it_was() -> None:
    old = importlib.import_module("titan_sdk.titan_sdk")
    assert old.TitanClient is titan_sdk.TitanClient
    assert old.TitanJob is titan_sdk.TitanJob
