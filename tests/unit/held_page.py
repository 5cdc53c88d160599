"""Writes docs/held.md, the list of promises and faults that have a test: .venv/bin/python -m tests.unit.held_page

A test says what it holds by its name: `test_i8_...` an invariant, `test_f27_...` a fault, `test_s40_...` a
requirement of security. The numbers are fixed for good; the words are here.
"""

import ast
import re

from tests.unit.sources import ROOT

PAGE = ROOT / "docs" / "held.md"
_NAME = re.compile(r"test_([ifs])(\d+)_(\w+)")
_JUDGED = re.compile(r"invariant (\d+):")
_SIMULATED = re.compile(r'Broken\("i(\d+)"')
HISTORIES = "random histories (tests/unit/core/test_invariants.py)"
SIMULATED = "simulated histories (tests/simulation)"

INVARIANTS = {
    1: "what was answered as accepted survives",
    2: "a submission is there whole, or not at all",
    5: "an acknowledged cancel, retry or store write survives",
    9: "a job is granted anew only after its former attempt ended, was given back or outlived its lease",
    14: "without a fault longer than the lease a job runs once",
    21: "one Master's writes an epoch, and none of a former one's",
    34: "a read sees every acknowledged write of the store; a swap succeeds once",
    36: "who watches sees what was committed, in that order",
    3: "one idempotency key, one run",
    7: "no attempt is granted before all its parents completed in the same database",
    8: "fences of a job strictly rise, over restarts too",
    11: "final states do not change; an end is applied once",
    12: "every job that is not over has an owner: a queue, a timer, a lease, a parent",
    10: "no two attempts of a job are alive",
    13: "when the faults stop, every run ends",
    15: "no run ends and then grows",
    16: "a graph with a fault is refused whole",
    17: "after a cancel is acknowledged nothing of the run is granted",
    19: "no ready job is passed over for ever",
    20: "a job that took three workers down is not given to a fourth",
    25: "after a timeout or a cancel no descendant survives",
    28: "a worker out of contact ends its jobs before anybody else may get them",
    31: "every byte that a job printed is there, in order, once",
    32: "where bytes of a log were dropped, how many and why is recorded and shown",
    33: "memory does not grow with what a job prints",
    35: "an artifact is there only when all of it is, with its hash; a late attempt publishes nothing",
    29: "a result is kept on the worker's disk until the Master has it",
}
FAULTS = {
    1: "the Master is killed at any moment under load",
    2: "the Master is killed between two steps of one piece of work",
    3: "the Master is killed while a fan-out is being released",
    6: "an fsync or a commit returns an error",
    7: "a write returns an error",
    8: "the Master's disk is full",
    9: "the worker's disk is full",
    10: "the database is damaged",
    11: "the write-ahead log is torn",
    12: "the database turns read-only",
    13: "a second Master on one database",
    14: "a reader that takes too long",
    15: "the database is locked from outside",
    17: "the outcome of a commit is unknown",
    19: "a Master that was replaced goes on",
    27: "the worker is killed",
    28: "worker and launcher are killed at once",
    29: "a tree of processes that resists its end",
    31: "a grandchild holds the output",
    32: "a job closes its output",
    33: "a flood of output",
    34: "lines of any length, any bytes",
    35: "a worker stopped beyond its lease",
    38: "a job is killed for its memory",
    40: "the machine cannot start another process",
    41: "the network is cut for less than a lease",
    42: "a worker that sends and does not receive",
    43: "frames arrive twice",
    44: "a link too slow for its logs",
    45: "frames that are none",
    47: "a worker that comes and goes",
    48: "two workers of one name",
    49: "a result is lost on the way",
    50: "the worker dies between the end of a process and its report",
    51: "the worker's disk is wiped while it runs",
    52: "a job that takes its workers down",
    60: "the upload of an artifact is cut at any byte, several under one key, and the Master killed",
    65: "an old backup is put back",
}
SECURITY = {
    1: "loopback only, unless told otherwise and safe",
    2: "no start without a good token that only its owner can read",
    3: "no route answers without a token, but the public list",
    4: "nothing of a body is read before the token is known",
    5: "only our own host names",
    6: "only pages of our own, over HTTP and WebSockets",
    7: "nothing changes by GET, and only the content types a route expects are read",
    8: "no list of bad programs stands in for a token",
    9: "no page of another origin may read an answer",
    10: "a server is believed by its certificate and its name alone",
    11: "TLS 1.2 or newer, and no connection that shows no good will keeps others out",
    12: "security headers on every answer",
    13: "roles in one table",
    14: "a job's token acts on its own run and those below",
    16: "a worker is let in by an enrolment that is good once, and speaks for its own name and attempts alone",
    17: "tokens are kept as hashes and compared in constant time",
    18: "no token in a log, an error, a URL or a list of processes",
    19: "a token that ends is cut off at once, on open connections too",
    20: "whoever keeps coming without a good token is told to wait, and nobody else",
    22: "a job sees nothing of the environment that Titan was started in",
    23: "files and folders are private",
    24: "no secret is shipped, and nothing starts with an unsafe one",
    25: "ids and names by one pattern",
    26: "an artifact is a download and no page, and neither key nor name leads elsewhere",
    28: "every size has a limit, and whoever goes over one is told which and how it is changed",
    29: "nothing that comes packed is unpacked",
    30: "a pipeline file is plain data, read within bounds: no tags, few aliases, each key once",
    31: "nothing received is unpickled, evaluated or given to a shell",
    32: "a regular expression takes steps in proportion to the text, or the text is bounded",
    33: "what is asked for is a value of the question and never a part of it",
    34: "a value is passed on as it is, and never expanded",
    35: "a number or a time that is none, or out of range, is refused at once",
    36: "what two programs could read in two ways is no request",
    40: "a terminal is safe from what a job prints",
    43: "ids are random, and still checked",
    46: "a worker listens on nothing",
    47: "a worker starts nothing that a Master should not ask for",
    48: "a workspace is hostile until it is gone",
    52: "the audit is only added to, each row on the hash of the one before",
    53: "whoever asks too often is told to wait, and nobody else pays for it",
    54: "an error tells a code, a request's id and words of ours, and nothing of how we are made",
    59: "no input is answered with a fault of ours",
}
TABLES = {"i": ("Invariants", INVARIANTS), "f": ("Faults", FAULTS), "s": ("Security", SECURITY)}


def held() -> dict[tuple[str, int], list[str]]:
    """Return (kind, number) -> the sentences of the tests that bear it, sorted.

    One test judges many invariants at once and names each in the words of its assertion.
    """
    found: dict[tuple[str, int], list[str]] = {}
    histories = (ROOT / "tests" / "unit" / "core" / "test_invariants.py").read_text(encoding="utf-8")
    for number in set(_JUDGED.findall(histories)):
        found["i", int(number)] = [HISTORIES]
    for file in sorted((ROOT / "tests" / "simulation").glob("*.py")):
        for number in set(_SIMULATED.findall(file.read_text(encoding="utf-8"))):
            found["i", int(number)] = sorted({*found.get(("i", int(number)), ()), SIMULATED})
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            named = _NAME.fullmatch(node.name) if isinstance(node, ast.FunctionDef) else None
            if named:
                kind, number, sentence = named.groups()
                found.setdefault((kind, int(number)), []).append(sentence.replace("_", " "))
    return {key: sorted(sentences) for key, sentences in found.items()}


def render() -> str:
    """Return the page. Raises KeyError when a test bears a number that has no words here."""
    lines = [
        "# What is held by a test",
        "",
        "Made from the names of the tests. What is not in this list is not claimed.",
    ]
    tests = held()
    for kind, (title, words) in TABLES.items():
        lines += ["", f"## {title}", "", "| number | what | tests |", "|---|---|---|"]
        for _, number in sorted(key for key in tests if key[0] == kind):
            sentences = "; ".join(tests[kind, number])
            lines.append(f"| {kind.upper()}{number} | {words[number]} | {sentences} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
