"""What a job sees around it: an environment from an allow-list, and where Titan's own packages are.

Nothing of the worker's environment reaches a job unless it is named here or by `--pass-env`: cloud keys
and tokens of whoever started the worker stay with the worker.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import titan_sdk
from titan.model.spec import JobSpec
from titan.model.wire import Grant
from titan.worker.devices import VARIABLE
from titan_sdk.discovery import PORTS

ENROLMENT = "TITAN_ENROLMENT"  # brings a worker the token it joins with; no job sees it
PASSED = frozenset({"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"})
PASSED_PREFIX = "LC_"
# What a worker itself needs beside that; its jobs can read its environment in /proc, so it holds no more.
OWN = frozenset({"TITAN_HOME", "TITAN_CA", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", VARIABLE})
OWN_PREFIXES = (PASSED_PREFIX, "TITAN_LIMIT_")


class JobEnvironment:
    """Builds the environment of every job of one worker.

    `url` says the Master's at the time of a start, `site` is the folder made by `install_site`, `base` the worker's own
    environment, `ca` whom to trust behind an https URL.
    """

    def __init__(
        self, url: Callable[[], str], site: Path, base: Mapping[str, str], pass_env: Iterable[str] = (), ca: str = ""
    ) -> None:
        names = PASSED | set(pass_env)
        self._base = {name: base[name] for name in base if name in names or name.startswith(PASSED_PREFIX)}
        self._url = url
        self._ca = ca
        self._site = str(site)

    def of_launcher(self) -> dict[str, str]:
        """Return what a warm launcher is started with: what every job has, and nothing that `pass_env` names."""
        base = {name: self._base[name] for name in self._base if name in PASSED or name.startswith(PASSED_PREFIX)}
        return base | {"PYTHONPATH": self._site}

    def of(self, grant: Grant, spec: JobSpec, workdir: str, shared: str, devices: str | None = None) -> list[bytes]:
        """Return "NAME=value" entries, exact bytes, for one attempt.

        `devices` is what it may see of this machine's GPUs, whatever it says itself; None leaves it to the job.
        """
        url = self._url()
        parts = urlsplit(url)
        values = {
            **self._base,
            "TITAN_URL": url,
            "TITAN_HOST": parts.hostname or "",
            "TITAN_PORT": str(parts.port or PORTS[parts.scheme]),
            **({"TITAN_CA": self._ca} if self._ca else {}),
            **spec.env,
            "TITAN_TOKEN": grant.token,
            "TITAN_RUN_ID": grant.run_id,
            "TITAN_JOB_ID": grant.job_id,
            "TITAN_ATTEMPT": str(grant.attempt),
            "TITAN_FENCE": str(grant.fence),
            "TITAN_IDEMPOTENCY_KEY": grant.idempotency_key,
            "TITAN_WORKDIR": workdir,
            "TITAN_SHARED_DIR": shared,
        }
        if devices is not None:
            values[VARIABLE] = devices
        own_path = values.get("PYTHONPATH")
        values["PYTHONPATH"] = f"{self._site}{os.pathsep}{own_path}" if own_path else self._site
        return [exact(f"{name}={value}") for name, value in values.items()]


def own_environment(environ: Mapping[str, str], pass_env: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of `environ` that a worker is started with; cloud keys and the like are not in it."""
    names = PASSED | OWN | set(pass_env)
    return {name: environ[name] for name in environ if name in names or name.startswith(OWN_PREFIXES)}


def exact(text: str) -> bytes:
    """Return the bytes `text` stands for, also those that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def install_site(folder: Path) -> None:
    """Make `folder`, which stands in every job's PYTHONPATH, with `sitecustomize.py` and `titan_sdk` in it.

    Nothing else of ours is in it, so a job's interpreter sees its own packages and not the worker's.
    """
    folder.mkdir(mode=0o700)
    source = Path(__file__).with_name("site") / "sitecustomize.py"
    shutil.copyfile(source, folder / "sitecustomize.py")
    (folder / "titan_sdk").symlink_to(Path(titan_sdk.__file__).parent, target_is_directory=True)
