"""What pages say in numbers and lists is so: examples, scripts, bugs, tables, dependencies, the map of the house."""

import re
import tomllib

from tests.docs.markdown import blocks, read
from tests.golden.table import MARK, TEXTS
from tests.simulation.mutants import MUTANTS
from tests.unit.sources import ROOT
from tests.warm.scripts import SCRIPTS as WARM_SCRIPTS
from tests.worker.as_without import SCRIPTS as CONTAINED_SCRIPTS
from titan.storage.tables import METADATA


def says(page: str, text: str) -> bool:
    return text in " ".join(read(page).split())


def test_there_are_as_many_examples_as_is_said() -> None:
    listed = re.findall(r"^\| \[(\w+)\]", read("examples/README.md"), re.MULTILINE)
    assert len(listed) == 9
    assert says("README.md", "nine patterns on real input")
    assert says("docs/README.md", "nine patterns on real input")
    assert says("CHANGELOG.md", "Nine examples now run on real input")


def test_scripts_and_bugs_are_as_many_as_is_said() -> None:
    inputs = sum(
        len(re.findall(rf"^{re.escape(MARK)}", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in TEXTS.glob("*.txt")
    )
    assert (says("docs/suites.md", "sends over 400 bad inputs"), inputs > 400) == (True, True)
    assert (says("docs/suites.md", "two dozen bugs"), len(MUTANTS) in range(22, 28)) == (True, True)
    assert (says("docs/containment.md", "some seventy small programs"), len(CONTAINED_SCRIPTS) in range(65, 76)) == (
        True,
        True,
    )
    assert (says("docs/warm-starts.md", "more than 200 scripts"), len(WARM_SCRIPTS) > 200) == (True, True)


def test_every_table_of_the_database_is_on_its_page() -> None:
    section = read("docs/storage.md").partition("## Tables")[2].partition("\n## ")[0]
    first = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    assert {name for cell in first for name in re.findall(r"`(\w+)`", cell)} == set(METADATA.tables)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    names = {re.split(r"[^\w-]", text)[0].lower() for text in (*wanted, *project["build-system"]["requires"])}
    page = read("docs/dependencies.md").lower()
    assert {name for name in names if name not in page} == set()


def test_the_map_of_the_house_is_one() -> None:
    (block,) = (block for block in blocks("CONTRIBUTING.md", read("CONTRIBUTING.md")) if block.language == "text")
    drawn = [line.split()[0] for line in block.text.splitlines()]
    assert all((ROOT / path).is_dir() for path in drawn)
    packages = {
        f"src/titan/{path.name}/" for path in (ROOT / "src" / "titan").iterdir() if (path / "__init__.py").exists()
    }
    assert packages <= set(drawn)
