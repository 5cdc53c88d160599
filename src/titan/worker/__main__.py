"""`python -m titan.worker`: one worker in the foreground. `titan up` and `titan worker` end up here."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop

from titan.core.link import LENT_MAX
from titan.model.ids import job_id_problem, one_line
from titan.model.limits import DEFAULT_LIMITS
from titan.model.spec import GENERAL
from titan.model.tokens import NAME_TAKEN
from titan.worker.environment import ENROLMENT
from titan.worker.joining import admit
from titan.worker.policy import PYTHON, Policy
from titan.worker.process import EXIT_REFUSED, Config, NameTaken, serve, take_name, take_other_name
from titan_sdk.errors import Conflict, TitanError

SLOTS_MAX = 10_000


def _id(what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        problem = job_id_problem(text, what)
        if problem:
            raise argparse.ArgumentTypeError(problem)
        return text

    return check


def _slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= SLOTS_MAX:
        raise argparse.ArgumentTypeError(f"give 1 to {SLOTS_MAX}")
    return int(text)


def _interpreter(text: str) -> str:
    if text != PYTHON and not os.path.isabs(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {PYTHON} nor a path from the root, like /bin/sh")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= DEFAULT_LIMITS.timeout_s_max:
        raise argparse.ArgumentTypeError(f"give 0.001 to {DEFAULT_LIMITS.timeout_s_max:.12g} seconds")
    return value


def _lent(text: str) -> int:
    if not text.isdecimal() or int(text) > LENT_MAX:
        raise argparse.ArgumentTypeError(f"give 0 to {LENT_MAX}")
    return int(text)


def _modules(text: str) -> tuple[str, ...]:
    for name in text.split(","):
        if not all(part.isidentifier() for part in name.split(".")):
            raise argparse.ArgumentTypeError(f"{name!r} is not the name of a module, like numpy or scipy.linalg")
    return tuple(dict.fromkeys(text.split(",")))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address like http://127.0.0.1:9090")
    return f"{parts.scheme}://{parts.netloc}"


def read_arguments(words: list[str]) -> Config:
    """Return what `words` ask for; leaves with exit code 2 and a message when they cannot be understood."""
    parser = argparse.ArgumentParser("titan.worker", description="Run one worker.", allow_abbrev=False)
    parser.add_argument("--home", type=Path, required=True, help="where the token is; makes workers/NAME in it")
    join = "the Master to work for; given again, another address of it"
    parser.add_argument("--join", type=_url, action="append", required=True, metavar="URL", help=join)
    parser.add_argument("--ca", default="", help="whom to trust behind https: a file or a fingerprint")
    parser.add_argument("--name", type=_id("worker name"), help="HOST-1, HOST-2, ... unless said")
    parser.add_argument("--slots", type=_slots, default=len(os.sched_getaffinity(0)), help="jobs at a time")
    parser.add_argument("--capability", type=_id("capability"), action="append", default=[], metavar="TAG")
    parser.add_argument("--no-general", action="store_true", help=f"do not offer {GENERAL}")
    parser.add_argument("--pass-env", default="", metavar="A,B", help="variables of this process that jobs shall see")
    allow = f"what may run jobs: a path, or {PYTHON} for .py files; repeated; anything unless said"
    parser.add_argument(
        "--allow-interpreter", type=_interpreter, action="append", default=[], metavar="PATH", help=allow
    )
    parser.add_argument("--timeout-max", type=_seconds, metavar="SECONDS", help="no job runs longer")
    parser.add_argument("--lend-max", type=_lent, default=LENT_MAX, metavar="N", help="jobs beyond the slots")
    parser.add_argument("--preload", type=_modules, default=(), metavar="A,B", help="modules that jobs find imported")
    parser.add_argument("--no-warm", action="store_true", help="execute every job")
    parser.add_argument("--token-file", type=Path, help="HOME/token unless said")
    parser.add_argument("--parent-fd", type=int, default=-1, help="leave at the end of file of this descriptor")
    parser.add_argument("--ready-fd", type=int, default=-1, help="say so there once connected")
    given = parser.parse_args(words)
    general = [] if given.no_general else [GENERAL]
    capabilities = tuple(dict.fromkeys([*general, *given.capability]))
    if not capabilities:
        parser.error("--no-general leaves the worker without any tag: name one with --capability")
    return Config(
        home=given.home,
        urls=tuple(dict.fromkeys(given.join)),
        name=given.name or "",
        slots=given.slots,
        capabilities=capabilities,
        pass_env=tuple(name for name in given.pass_env.split(",") if name),
        token_file=given.token_file or given.home / "token",
        ca=given.ca,
        policy=Policy(tuple(dict.fromkeys(given.allow_interpreter)), given.timeout_max, given.lend_max),
        preload=None if given.no_warm else given.preload,
        parent_fd=given.parent_fd,
        ready_fd=given.ready_fd,
    )


def main() -> int:
    """Run a worker as the command line says; return its exit code."""
    config = read_arguments(sys.argv[1:])
    # Before the first folder is made: also the one above the worker's own is private.
    os.umask(0o077)
    try:
        name = take_name(config.home, config.name)
    except NameTaken as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{error.filename} cannot be used: {error.strerror}", "choose another folder with TITAN_HOME")

    def say(text: str) -> None:
        print(f"worker {name.name}: {one_line(text)}", file=sys.stderr, flush=True)  # noqa: T201 - it is its voice

    enrolment = os.environ.pop(ENROLMENT, "")
    try:
        try:
            admission = admit(name.folder, name.name, config.urls, enrolment, config.ca, config.token_file, say)
        except Conflict as error:
            if config.name or error.code != NAME_TAKEN:
                raise
            # Machines made from one image have one host name, and the enrolment is still good.
            name = take_other_name(config.home, name)
            admission = admit(name.folder, name.name, config.urls, enrolment, config.ca, config.token_file, say)
    except TitanError as error:
        return _refused(error.message, error.hint)
    config = msgspec.structs.replace(
        config, token_file=admission.token_file, ca=admission.ca, has_credential=admission.is_own
    )
    return uvloop.run(serve(config, name, os.environ))


def _refused(why: str, then: str = "") -> int:
    print(f"titan worker: {one_line(why)}", file=sys.stderr)  # noqa: T201 - it is its voice
    if then:
        print(f"Next: {one_line(then)}", file=sys.stderr)  # noqa: T201 - likewise
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
