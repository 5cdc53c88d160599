"""Scripts that use numpy: fresh, as a fork of the lean server, and as a fork of one that has numpy imported."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.warm.numpy_scripts import NUMPY_SCRIPTS
from tests.warm.starting import WarmLauncher, all_ways
from tests.warm.test_mutants import planted
from titan.worker.warmth import WARM, Warmth

LEAN = ("products", "products on both sides of a fork", "a seed of its own")
RANDOM = ("numpy", "numpy.random")
OWN = "import sys\nmine = 'numpy.random' in sys.modules\nimport numpy as np\nprint(mine, np.random.rand())\n"
THREADS = "import os\nimport numpy as np\nnp.ones((300, 300)) @ np.ones((300, 300))\n"


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmLauncher]:
    launcher = WarmLauncher(tmp_path_factory.mktemp("launcher"), ("numpy",))
    yield launcher
    launcher.close()


@pytest.mark.parametrize("name", NUMPY_SCRIPTS)
def test_a_script_with_numpy_preloaded_is_as_a_fresh_one(launcher: WarmLauncher, tmp_path: Path, name: str) -> None:
    fresh, *warm = all_ways(launcher, tmp_path, NUMPY_SCRIPTS[name])
    assert warm == [fresh, fresh]


def test_and_as_one_that_imports_it_itself(tmp_path: Path) -> None:
    launcher = WarmLauncher(tmp_path)
    for name in LEAN:
        (tmp_path / name).mkdir()
        fresh, *warm = all_ways(launcher, tmp_path / name, NUMPY_SCRIPTS[name])
        assert warm == [fresh, fresh]
    launcher.close()


def test_what_its_threads_are_set_by_asks_for_a_fresh_start(launcher: WarmLauncher, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(THREADS + "print(len(os.listdir('/proc/self/task')))")
    launcher.env["OPENBLAS_NUM_THREADS"] = "1"
    assert launcher.run(tmp_path) == (0, "1\n")
    assert launcher.start_word == "exec: OPENBLAS_NUM_THREADS in its environment"
    del launcher.env["OPENBLAS_NUM_THREADS"]
    launcher.run(tmp_path)
    assert launcher.start_word == WARM


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOTO_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES"])
def test_and_so_does_what_else_is_read_at_its_import(name: str) -> None:
    assert Warmth({}, (), (), "")._environment_problem([f"{name}=1".encode()]) == f"{name} in its environment"


def numbers(launcher: WarmLauncher, folder: Path) -> set[str]:
    (folder / "job.py").write_text(OWN)
    said = [launcher.run(folder) for _ in range(2)]
    launcher.close()
    assert all(code == 0 and text.startswith("True 0.") for code, text in said), said
    return {text for _, text in said}


def test_the_random_numbers_of_two_jobs_differ(tmp_path: Path) -> None:
    assert len(numbers(WarmLauncher(tmp_path, RANDOM), tmp_path)) == 2


def test_and_a_server_that_does_not_seed_them_anew_is_noticed(tmp_path: Path) -> None:
    source = planted(tmp_path / "source", "become", '        modules["numpy.random"].seed()\n', "        pass\n")
    assert len(numbers(WarmLauncher(tmp_path, RANDOM, source), tmp_path)) == 1


def test_they_differ_also_where_a_module_chose_another_generator(tmp_path: Path) -> None:
    text = "import numpy.random as r\nr.set_bit_generator(r.PCG64(1))\n"
    launcher = WarmLauncher(tmp_path, ("numpy", "chooser"), modules={"chooser": text})
    assert len(numbers(launcher, tmp_path)) == 2
