"""Whether a job may begin warm, as a fork of the launcher, and if not, why it is executed.

A fork must be what a fresh interpreter would have been. So whatever is read when an interpreter, its memory or a
preloaded library begins has to be the launcher's own; and a module of the job's must not stand in front of one that
the launcher has imported already.
"""

import os
from collections.abc import Iterable

from titan.model.spec import JobSpec
from titan.worker.environment import exact

WARM = "warm"
EXECUTED = "exec"
PREFIXES = (
    "PYTHON", "LD_", "MALLOC_", "GLIBC_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "VECLIB_",
    "NUMEXPR_", "NPY_", "COVERAGE_", "COV_CORE_", "SETUPTOOLS_",
)  # fmt: skip
# Read when libraries are imported that others import: they count where anything is preloaded.
PRELOAD_PREFIXES = ("HF_", "JAX_", "MPL", "OPENSSL_", "PYTORCH_", "TF_", "TORCH", "XDG_", "XLA_")
# These may be set, but to what the launcher has.
SAME = (b"HOME=", b"LANG=", b"LANGUAGE=", b"LC_", b"PYTHONPATH=")
_MODULE_ENDS = (".py", ".pyc", ".so")
OFF = "the worker was started without warm starts"


class Warmth:
    """What one launcher can be forked into. `environ` is what it was started with, `names` are the modules it has.

    `problem` says why it can be none, "" if it can.
    """

    def __init__(
        self,
        environ: dict[str, str],
        names: Iterable[str] = (),
        preload: Iterable[str] = (),
        problem: str = OFF,
    ) -> None:
        self.problem = problem
        self._names = frozenset(names)
        entries = [exact(f"{name}={value}") for name, value in environ.items()]
        self._same = frozenset(entry for entry in entries if entry.startswith(SAME))
        own = [f"{name.partition('.')[0].upper()}_" for name in preload]
        if own:
            own += PRELOAD_PREFIXES
        self._prefixes = tuple(prefix.encode() for prefix in (*PREFIXES, *own))

    def start_of(self, spec: JobSpec, env: list[bytes], workdir: str) -> str:
        """Return how the job begins: WARM, or EXECUTED with the reason."""
        why_not = self._why_not(spec, env, workdir)
        return f"{EXECUTED}: {why_not}" if why_not else WARM

    def _why_not(self, spec: JobSpec, env: list[bytes], workdir: str) -> str:
        if not spec.filename.endswith(".py"):
            return "not a Python file"
        if not spec.warm:
            return "warm=False"
        if self.problem:
            return self.problem
        return self._environment_problem(env) or self._shadow(workdir)

    def _environment_problem(self, env: list[bytes]) -> str:
        same = frozenset(entry for entry in env if entry.startswith(SAME))
        others = [entry for entry in env if entry.startswith(self._prefixes) and not entry.startswith(SAME)]
        for entry in (*sorted(same ^ self._same), *others):
            return f"{os.fsdecode(entry.partition(b'=')[0])} in its environment"
        return ""

    def _shadow(self, workdir: str) -> str:
        for entry in os.listdir(workdir):
            name, dot, _ = entry.partition(".")
            if name in self._names and (not dot or entry.endswith(_MODULE_ENDS)):
                return f"{entry} stands in front of a module that is imported already"
        return ""


def named(problem: str, preload: tuple[str, ...]) -> tuple[str, ...]:
    """Return the module of `preload` that a launcher's `problem` is about; all of them when it names none."""
    word, _, rest = problem.partition(" ")
    about = rest.partition(" ")[0].rstrip(":")
    return (about,) if word == "import" and about in preload else preload
