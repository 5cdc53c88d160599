"""Faults planted in the fork server, one at a time: the conformance suite must notice each.

A plant replaces text in a copy of the launcher's source; each names the scripts that are to find it.
"""

import shutil
from pathlib import Path

import pytest

import titan
from tests.warm.scripts import SCRIPTS
from tests.warm.starting import WarmLauncher, all_ways
from titan.worker.warmth import Warmth

OWN = (
    "import random, os\nfrom multiprocessing import process\n"
    "print(random.random(), process.current_process().authkey.hex())"
)
AFTER = "    time.tzset()\n"
PLANTS = {
    "leaves at once": ("become", "            code = finish(code, self._server)\n", "", "unflushed file"),
    "files in cycles": ("become", "    _let_go(server)\n", "", "del at the end"),
    "atexit is lost": ("become", "    atexit._run_exitfuncs()\n", "", "atexit in reverse"),
    "handlers outlive main": ("become", "    _drop_handlers()\n", "", "a signal at the end"),
    "C output is lost": ("become", "    _libc.fflush(None)\n", "", "unflushed C output"),
    "a descriptor is left": ("become", "_close(3, LAST_DESCRIPTOR)", "", "the next descriptor"),
    "another umask": ("become", AFTER, f"{AFTER}    os.umask(0o022)\n", "umask and session"),
    "another folder": ("become", AFTER, f'{AFTER}    os.chdir("/tmp")\n', "cwd"),
    "a signal is blocked": ("become", AFTER, f"{AFTER}    _signal.pthread_sigmask(0, [10])\n", "signals"),
    "C has another environment": ("become", "    server.place.begin_environment(given)\n", "", "getenv of C"),
    "moved modules are kept": (
        "become", "if len(sys.modules) - len(found) != server.count:", "if False:", "del in a module before the others"
    ),
    "handlers are kept": ("spawn", "self._handlers = signals_to_reset()", "self._handlers = []", "signals"),
    "the old main": ("become", '    sys.modules["__main__"] = main\n', "", "main"),
    "main has no file": ("become", "    main.__file__ = path\n", "", "main"),
    "no path of its own": (
        "become", "    sys.path.insert(0, _folder_of(argv[1]))\n", "", "argv and path"
    ),
    "old arguments": ("become", "    sys.argv = words[1:]\n", "", "argv and path"),
    "our frames are shown": ("become", "failure.__traceback__.tb_next\n", "failure.__traceback__\n", "traceback"),
    "any end is good": ("become", "    code = leaving.code\n", "    code = 0\n", "processes: exit code"),
    "the collector is off": ("become", "    gc.enable()\n", "", "collector"),
    "others see the server": (
        "spare",
        "            place.show(given)\n",
        "",
        "what others see",
    ),
    "the launcher's modules": ("become", "sys.modules.pop(name) for", "sys.modules[name] for", "no launcher in it"),
    "streams of another kind": ("become", "        os.dup2(writing, descriptor)\n", "", "streams"),
}  # fmt: skip
REHEARSED = "    _let_go(server)\n    sys.modules"
AHEAD = {
    "signals stay blocked": (
        "spare",
        "_set(number, _signal.SIG_DFL)\n        _signal",
        "_set(number, _signal.SIG_DFL)\n        isinstance(source, Line) or _signal",
        "signals",
    ),
    "a module of the rehearsal's": (
        "become", REHEARSED, f"    import titan.worker.launcher.record\n{REHEARSED}", "no launcher in it"
    ),
    "arguments of the rehearsal's": ("become", REHEARSED, f"    sys.path.insert(0, '/')\n{REHEARSED}", "argv and path"),
    "its folder": ("spare", "os.chdir(given.cwd())", "self.ahead or os.chdir(given.cwd())", "cwd"),
}  # fmt: skip


def planted(folder: Path, module: str, text: str, instead: str) -> str:
    """Return the root of a copy of the launcher's source with `text` replaced."""
    root = Path(titan.__file__).parent
    (folder / "titan" / "worker").mkdir(parents=True)
    for name in ("__init__.py", "worker/__init__.py"):
        shutil.copy(root / name, folder / "titan" / name)
    shutil.copytree(root / "worker" / "launcher", folder / "titan" / "worker" / "launcher")
    path = folder / "titan" / "worker" / "launcher" / f"{module}.py"
    source = path.read_text()
    assert text in source, "the plant has lost its place"
    path.write_text(source.replace(text, instead))
    return str(folder)


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_noticed(tmp_path: Path, name: str) -> None:
    module, text, instead, script = PLANTS[name]
    launcher = WarmLauncher(tmp_path, source=planted(tmp_path / "source", module, text, instead))
    fresh, *warm = all_ways(launcher, tmp_path, SCRIPTS[script])
    launcher.close()
    assert fresh not in warm


@pytest.mark.parametrize("name", AHEAD)
def test_a_fault_of_forks_that_are_made_ahead_is_noticed(tmp_path: Path, name: str) -> None:
    module, text, instead, script = AHEAD[name]
    launcher = WarmLauncher(tmp_path, source=planted(tmp_path / "source", module, text, instead))
    fresh, ahead, at_once = all_ways(launcher, tmp_path, SCRIPTS[script])
    launcher.close()
    assert ahead != fresh
    assert at_once == fresh


def own_twice(tmp_path: Path, launcher: WarmLauncher) -> set[str]:
    (tmp_path / "job.py").write_text(OWN)
    said = [launcher.run(tmp_path)[1].split() for _ in range(2)]
    launcher.close()
    assert all(len(words) == 2 for words in said)
    return {word for words in said for word in words}


def test_random_states_and_keys_are_each_jobs_own(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path, ("random", "multiprocessing.process"))
    assert len(own_twice(tmp_path, launcher)) == 4


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        (AFTER, f"{AFTER}    sys.modules['random'].seed(1)\n"),
        ("        process.current_process().authkey = os.urandom(32)\n", ""),
    ],
)
def test_a_shared_random_state_or_key_is_noticed(tmp_path: Path, text: str, instead: str) -> None:
    source = planted(tmp_path / "source", "become", text, instead)
    launcher = WarmLauncher(tmp_path, ("random", "multiprocessing.process"), source)
    assert len(own_twice(tmp_path, launcher)) == 3


@pytest.mark.parametrize("planted", [False, True])
def test_a_module_beside_the_script_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: bool) -> None:
    launcher = WarmLauncher(tmp_path)
    if planted:
        monkeypatch.setattr(Warmth, "_shadow", lambda *_: "")
    fresh, *warm = all_ways(launcher, tmp_path, "import struct\nprint(struct.MINE)", beside="struct")
    launcher.close()
    assert (warm != [fresh, fresh]) is planted
