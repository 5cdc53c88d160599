"""titan completion: a real bash completes commands with it, where there is one."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.cluster import TITAN, bare_environment, titan
from tests.acceptance.test_commands import document

ASK = """
source "$1"
complete -p titan
COMP_WORDS=(titan {words}); COMP_CWORD={at}
_titan_completion "$2"
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [("re", 1, "retry"), ("store i", 2, "incr"), ("ps --limit 5 --sta", 4, "--state"), ("completion f", 2, "fish")],
)
def test_bash_completes(tmp_path: Path, words: str, at: int, expected: str) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    script = tmp_path / "titan.bash"
    script.write_bytes(titan(tmp_path, "completion", "bash").stdout)
    asked = ASK.format(words=words, at=at)
    done = subprocess.run(
        [bash, "-c", asked, "bash", str(script), TITAN],
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    registered, found = done.stdout.splitlines()
    assert registered.endswith("_titan_completion titan")
    assert found == expected


def test_every_shell_has_a_script(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        told = document(titan(tmp_path, "completion", shell, "--json"))
        assert (told["shell"], "_TITAN_COMPLETE=" in told["script"]) == (shell, True)
    wrong = titan(tmp_path, "completion", "csh")
    assert wrong.returncode == 2
    assert b"'bash', 'zsh', 'fish'" in wrong.stderr
