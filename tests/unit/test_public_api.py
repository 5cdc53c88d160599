"""What people build on: the names of titan_sdk, held as a list. A change here is a change of the product."""

import inspect
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import titan_sdk
from tests.unit.sources import report

PUBLIC = [
    "Conflict",
    "Denied",
    "FileMissing",
    "Internal",
    "Invalid",
    "NotFound",
    "RunFailed",
    "StorageFull",
    "TimedOut",
    "TitanError",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
]


def undocumented(module: ModuleType | SimpleNamespace, names: list[str]) -> Iterator[str]:
    """Yield the public names, and the public methods of classes among them, that have no docstring of their own."""
    for name in names:
        thing = getattr(module, name)
        if not thing.__doc__:
            yield name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                callable_or_property = inspect.isroutine(value) or isinstance(value, property)
                if callable_or_property and not member.startswith("_") and not value.__doc__:
                    yield f"{name}.{member}"


def test_the_public_names_are_the_list() -> None:
    assert titan_sdk.__all__ == PUBLIC


def test_the_list_is_sorted_and_says_nothing_twice() -> None:
    assert sorted(set(PUBLIC)) == PUBLIC


def test_nothing_else_looks_public() -> None:
    visible = {name for name, value in vars(titan_sdk).items() if not name.startswith("_")}
    modules = {name for name in visible if inspect.ismodule(getattr(titan_sdk, name))}
    assert visible - modules == set(PUBLIC)


def test_every_public_name_has_a_docstring() -> None:
    missing = list(undocumented(titan_sdk, titan_sdk.__all__))
    assert not missing, report(missing)


def test_a_missing_docstring_is_found() -> None:
    class Documented:
        """A class with one silent method."""

        def silent(self) -> None:
            pass

        def _private(self) -> None:
            pass

    def bare() -> None:
        pass

    sample = SimpleNamespace(Documented=Documented, bare=bare)
    assert list(undocumented(sample, ["Documented", "bare"])) == ["Documented.silent", "bare"]
