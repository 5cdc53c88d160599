"""`titan doctor`: looks at everything that has to be right, and says what is not and what to do."""

import dataclasses
import os
import platform
import resource
import shutil
import stat
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from titan import __version__
from titan.cli import home as homes
from titan.cli.ask import Document, Master
from titan.cli.exits import Exit, exit_of_error
from titan.cli.options import common
from titan.cli.output import Output, colour_wanted, plural
from titan.cli.tell import link_of, remedy
from titan_sdk.discovery import Finder, home_folder
from titan_sdk.errors import TitanError

GOOD, WARN, BAD = "ok", "warning", "bad"
MARKS = {GOOD: ("ok", "32"), WARN: ("!!", "33"), BAD: ("NO", "31")}
FREE_BYTES_MIN = 1024**3
FILES_MIN = 4_096
SKEW_S_MAX = 5.0
ALONE = {"master": Exit.UNREACHABLE, "access": Exit.DENIED}
# The lock, and the database's shared memory, hold on one machine only.
REMOTE_KINDS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs", "lustre"})


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its name, whether it is as it should be, what was found, and what to do."""

    name: str
    state: str
    found: str
    remedy: str = ""


@click.command(
    "doctor", short_help="Look whether everything is right, and say what is not.", epilog="Example: titan doctor --json"
)
@common
def command(out: Output) -> int:
    """Look at this machine, the home, the settings and the Master, and say what is not right and what to do.

    It changes nothing. Exits with 0 when nothing is bad (a warning is not); when that alone is bad, with 4 if no Master
    answers and 5 if the token may not look; else with 6.
    """
    checks = [*_machine(), *_home(Path(home_folder(os.environ))), *_master()]
    if out.as_json:
        out.document({"checks": [dataclasses.asdict(check) for check in checks]})
    else:
        _tell(out, checks)
    bad = {check.name for check in checks if check.state == BAD}
    if len(bad) == 1:
        return ALONE.get(bad.pop(), Exit.INVALID)
    return Exit.INVALID if bad else Exit.OK


def _tell(out: Output, checks: list[Check]) -> None:
    colours = colour_wanted(out.stdout)
    width = max(len(check.name) for check in checks)
    for check in checks:
        if out.quiet:
            if check.state != GOOD:
                out.line(check.name)
            continue
        mark, code = MARKS[check.state]
        shown = f"\x1b[{code}m{mark}\x1b[0m" if colours else mark
        out.line(f"{shown}  {check.name.ljust(width)}  {check.found}")
        if check.remedy and check.state != GOOD:
            out.line(f"    {' ' * width}  {check.remedy}")


def _machine() -> Iterator[Check]:
    found = f"Titan {__version__}, Python {platform.python_version()} at {sys.executable}"
    yield Check("program", GOOD, found)
    system = f"{platform.system()} {platform.release()}, {plural(len(os.sched_getaffinity(0)), 'CPU')}"
    if sys.platform == "linux":
        yield Check("system", GOOD, system)
    else:
        remedy = "a job's processes are held together by process group alone; Windows is for clients only"
        yield Check("system", WARN, f"{system}: complete on Linux only", remedy)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state = GOOD if soft >= FILES_MIN or soft == resource.RLIM_INFINITY else WARN
    yield Check("open files", state, f"limit {soft}", f"ulimit -n {min(hard, 65_536)}, for thousands of jobs at a time")
    gpu = shutil.which("nvidia-smi")
    yield Check("gpus", GOOD, f"handed out one a job ({gpu})" if gpu else "no nvidia-smi: GPU is a plain tag here")


def _home(home: Path) -> Iterator[Check]:
    if not home.exists():
        yield Check("home", GOOD, f"{home} is not there yet: titan up makes it")
        return
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Check("home", BAD, f"{home} may be written by others (mode {mode:o})", f"chmod go-w {home}")
    elif not os.access(home, os.W_OK | os.X_OK):
        yield Check("home", BAD, f"{home} cannot be written by you", "set TITAN_HOME to a folder of your own")
    else:
        holder = homes.holder(home)
        who = f"held by titan up, pid {holder.pid}" if holder else "no titan up holds it"
        yield Check("home", GOOD, f"{home}, {who}")
    token = home / homes.TOKEN
    if token.exists() and stat.S_IMODE(token.stat().st_mode) & 0o077:
        yield Check("token", BAD, f"{token} may be read by others", f"chmod 600 {token}, then titan token create anew")
    free = shutil.disk_usage(home).free
    said = f"{free / 1024**3:.1f} GiB free"
    yield Check("disk", GOOD if free >= FREE_BYTES_MIN else WARN, said, "free some: a full disk stops submissions")
    kind = _file_system(home)
    if kind in REMOTE_KINDS:
        remedy = "choose one on this machine's own disk: TITAN_HOME=/folder"
        yield Check("file system", BAD, f"{home} is on {kind}, where locks and the database are not safe", remedy)


def _file_system(path: Path) -> str:
    """Return the kind of file system that `path` is on, "" where the system does not say."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    whole = path.resolve()
    fitting = [(len(mount[1]), mount[2]) for mount in mounts if whole.is_relative_to(_unescaped(mount[1]))]
    return max(fitting, default=(0, ""))[1]


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _master() -> Iterator[Check]:
    try:
        endpoint = Finder().endpoints()[0]
    except TitanError as error:
        yield Check("settings", BAD, error.message, error.hint)
        return
    yield Check("settings", GOOD, f"{endpoint.url} from {endpoint.origin}, token {'set' if endpoint.token else 'none'}")
    try:
        overview = Master().overview()
    except TitanError as error:
        name = "access" if exit_of_error(error) == Exit.DENIED else "master"
        yield Check(name, BAD, error.message, error.hint or "titan up starts one here")
        return
    yield from _of(overview, endpoint.url)


def _of(overview: Document, url: str) -> Iterator[Check]:
    stats = overview["stats"]
    state = GOOD if stats["version"] == __version__ else WARN
    found = f"Titan {stats['version']} answers, {plural(stats['runs_living'], 'run')} under way"
    yield Check("master", state, found, f"this program is Titan {__version__}: use one version")
    skew_s = (datetime.now().astimezone() - datetime.fromisoformat(overview["now"])).total_seconds()
    if abs(skew_s) > SKEW_S_MAX:
        yield Check("clock", WARN, f"{abs(skew_s):.0f} s apart from the Master's", "times shown here are off: use NTP")
    workers = overview["workers"]
    if not stats["workers"]:
        yield Check("workers", BAD, "none is connected: jobs wait", "titan worker --join URL, or titan up")
    else:
        yield Check(
            "workers", GOOD, f"{stats['workers']} connected, {stats['slots_free']} of {stats['slots']} slots free"
        )
    for worker in workers:
        link = link_of(worker)
        if link == "stopped":
            yield Check("worker", GOOD, f"{worker['name']} was stopped in order")
        elif link == "away":
            yield Check(
                "worker", WARN, f"{worker['name']} is away", "look at its machine; its jobs go on after a lease"
            )
        elif worker["version"] != stats["version"]:
            yield Check("worker", WARN, f"{worker['name']} is Titan {worker['version']}", "start it anew with this one")
    for queue in overview["waiting"]:
        if queue["reason"] in ("NO_WORKER_WITH_CAPABILITY", "WORKERS_DRAINING", "PINNED_WORKER_AWAY"):
            waiting = f"{plural(queue['jobs'], 'job')} for {', '.join(queue['requirement'])}: {queue['message']}"
            yield Check("queue", WARN, waiting, remedy(queue, url))
