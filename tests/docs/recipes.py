"""What single pages ask of their readers, and the few commands that no test types, each with its reason."""

import json
import re

from tests.docs.markdown import Block
from tests.docs.reader import Reader, Recipe
from tests.unit.sources import ROOT

INSTALLED = "the tests run in such an installation"
A_GATE = "it runs the tests, this one among them"

# page -> command -> why nobody types it here. Whoever adds a line says what runs it instead.
LEFT_OUT: dict[str, dict[str, str]] = {
    "README.md": {
        "pip install .": INSTALLED,
    },
    "CONTRIBUTING.md": {
        "./dev test": A_GATE,
        "./dev test tests/unit -k layers -x": A_GATE,
        "./dev check": A_GATE,
    },
    "docs/simulator.md": {"./dev sim --ci": "it takes ten minutes"},
    "examples/code_healer/README.md": {
        "python examples/code_healer/heal.py examples/code_healer/broken/third": "640 tests of the one script that it "
        "does not heal take a minute; tests/acceptance/test_code_healer.py heals two of these scripts"
    },
}


def done(reader: Reader, line: str) -> str:
    """Run a command that is not on the page; return what it prints."""
    code, said = reader.near.run(line)
    assert code == 0, said
    return said


def new_token(reader: Reader, word: str, whole: bool) -> None:
    """Have `word` mean a token made a moment ago, or its id."""
    token = done(reader, "titan token create reader --role viewer 2>/dev/null").strip()
    reader.means[word] = token if whole else token.split(".")[1]


def of_the_sdk(reader: Reader, block: Block) -> None:
    """Run an example that begins in the middle of a program."""
    reader.write("example.py", f"from titan_sdk import *\n{block.text}")
    done(reader, "python example.py")


def of_the_simulator(reader: Reader, block: Block) -> None:
    """Run an example that adds a kind of fault: it has to be the one that there is."""
    added = re.findall(r'^KINDS\["(\w+)"\] = ', block.text, re.MULTILINE)
    assert len(added) == 1
    same = f"kind = KINDS['{added[0]}']; assert [kind.low, kind.high, type(kind)] == [was.low, was.high, type(was)]"
    before = f"import copy\nfrom tests.simulation import faults\nwas = copy.copy(faults.KINDS['{added[0]}'])\n"
    reader.write("example.py", f"{before}{block.text}\n{same}\n")
    done(reader, f"PYTHONPATH={ROOT} python example.py")


def settings_file(reader: Reader, block: Block) -> None:
    """Write the file of profiles, and have it read."""
    folder = reader.near.home / ".config" / "titan"
    folder.mkdir(parents=True)
    text = block.text.replace("FINGERPRINT", "ab" * 32)
    (folder / "config.toml").write_text(text)
    token = folder / "lab.token"
    token.write_text("tt.0.0\n")
    token.chmod(0o600)
    said = done(reader, "titan config ls --show-origin")
    assert re.search(r"^url +https://lab\.example:9090 +profile lab in ", said, re.MULTILINE), said
    assert re.search(r"^ca +sha256:(ab)+ +profile lab in ", said, re.MULTILINE), said


def error_document(reader: Reader, block: Block) -> None:
    """Ask for what is not there."""
    asked = 'curl -s -H "Authorization: Bearer $TOKEN" http://127.0.0.1:9090/api/v1/runs/@last/jobs/helo'
    said = done(reader, reader.fitted(asked))
    told = json.dumps(json.loads(block.text)).replace("5465d0db-7", "...")
    reader.compare(asked, told, json.dumps(json.loads(said)), block)


def below(reader: Reader) -> None:
    """The run that fix.py was in stands below that of parent.py."""
    runs = json.loads(done(reader, "titan ps --json"))["runs"]
    assert [(run["name"], run["parent_job_id"]) for run in runs] == [("fix", "parent"), ("parent", None)]


MINE = "print('mine')\n"

RECIPES: dict[str, Recipe] = {
    "README.md": Recipe(files=dict.fromkeys(("extract.py", "clean.py", "report.py"), MINE), any_order=True),
    "docs/child-runs.md": Recipe(after=below),
    "docs/how-to/pipeline-files.md": Recipe(any_order=True),
    "docs/how-to/second-machine.md": Recipe(
        before={
            "export TITAN_URL=https://192.0.2.7:9090 TITAN_CA=sha256:9c41... TITAN_TOKEN=tt....": lambda reader: (
                new_token(reader, "tt....", whole=True)
            )
        }
    ),
    "docs/reference/cli.md": Recipe(blocks={"toml": settings_file}),
    "docs/reference/http-api.md": Recipe(blocks={"json": error_document}, needs="curl"),
    "docs/reference/sdk.md": Recipe(
        files={"etl/extract.py": "", "ml/train.py": ""}, blocks={"python": of_the_sdk}, up=True
    ),
    "docs/security.md": Recipe(
        up=True, before={"titan token revoke ID": lambda reader: new_token(reader, "ID", whole=False)}
    ),
    "docs/simulator.md": Recipe(fit={"1-2000": "1-3"}, blocks={"python": of_the_simulator}),
    "examples/yaml_diamond/README.md": Recipe(any_order=True),
    "examples/gpu_routing/README.md": Recipe(waits={"python examples/gpu_routing/route.py": "titan worker --join "}),
    "examples/recursive_agent/README.md": Recipe(fails={"python examples/recursive_agent/start.py --failures 9": 1}),
}
