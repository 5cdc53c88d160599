"""No module needs itself: zero import cycles. An import inside a function counts, for it only hides the cycle."""

from graphlib import CycleError, TopologicalSorter

from tests.unit.sources import Source, imports, parse, read_tree


def import_cycle(sources: list[Source]) -> list[str]:
    """Return the modules of one cycle in order, or an empty list when there is none."""
    known = {source.module for source in sources}
    graph: dict[str, set[str]] = {}
    for source in sources:
        targets = set()
        for item in imports(source):
            if item.only_for_types:
                continue
            submodule = f"{item.module}.{item.name}"
            targets.add(submodule if submodule in known else item.module)
        graph[source.module] = {target for target in targets if target in known}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return []


def test_there_is_no_import_cycle() -> None:
    assert import_cycle(read_tree("src")) == []


def test_a_cycle_is_found_and_named() -> None:
    a = parse("from pack import b", "pack.a")
    b = parse("def late():\n    import pack.c", "pack.b")
    c = parse("from pack.a import thing", "pack.c")
    assert set(import_cycle([a, b, c])) == {"pack.a", "pack.b", "pack.c"}
    assert import_cycle([a, b]) == []


def test_a_module_that_imports_itself_is_a_cycle() -> None:
    assert import_cycle([parse("import solo", "solo")]) == ["solo", "solo"]


def test_an_import_for_type_checkers_is_none() -> None:
    a = parse("if TYPE_CHECKING:\n    from pack.b import B", "pack.a")
    b = parse("from pack.a import A", "pack.b")
    assert import_cycle([a, b]) == []
