"""The layers of the house: a file imports lower layers and its own package, never upward.

`master` and `worker` meet only in `model`: whatever they must agree on is a word there. SQL lives in
`storage` alone, and `core` has no way to reach a clock, a random number, a file or a socket.
"""

import sys

from tests.unit.sources import Source, imports, parse, read_tree, report

# Who may import whom, lowest first; a package may always import itself. A new package is a new row.
LAYERS = {
    "titan_sdk": set(),
    "titan.model": {"titan_sdk"},
    "titan.core": {"titan.model"},
    "titan.storage": {"titan_sdk", "titan.model", "titan.core"},
    "titan.master": {"titan_sdk", "titan.model", "titan.core", "titan.storage"},
    "titan.worker": {"titan_sdk", "titan.model", "titan.core"},
    "titan.cli": {"titan_sdk", "titan.model", "titan.core", "titan.storage", "titan.master", "titan.worker"},
}
# The package `titan` itself holds the version, which everybody may know except the SDK.
ROOT_PACKAGE = "titan"

LIBRARIES = {
    "titan_sdk": set(),
    "titan.model": {"msgspec"},
    "titan.core": {"msgspec"},
    "titan.storage": {"msgspec", "sqlalchemy", "alembic"},
    "titan.master": {"msgspec", "litestar", "uvicorn", "uvloop"},
    "titan.worker": {"msgspec", "websockets", "uvloop", "sitecustomize"},
    "titan.cli": {"msgspec", "click", "cryptography"},
    ROOT_PACKAGE: set(),
}
# Started beside or inside every job, by whatever interpreter the job has: the standard library and itself only.
# `site` ends by calling the `sitecustomize` that it stands in front of.
STANDALONE = {"titan.worker.launcher": set(), "titan.worker.site": {"sitecustomize"}}
# The SDK needs nothing but the standard library, except in the one call that reads a pipeline file.
ALSO = {"titan_sdk.pipeline_nodes": {"yaml"}}
SQL_MODULES = {"sqlite3", "sqlalchemy", "alembic"}
# No asyncio, time, datetime, random, secrets, os, pathlib, logging, threading, socket.
PURE_STDLIB = {
    "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "itertools", "math", "operator",
    "re", "typing",
}  # fmt: skip


def layer_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == ROOT_PACKAGE else parts[0]


def layer_violations(source: Source) -> list[str]:
    own = layer_of(source.module)
    if own not in LAYERS and own != ROOT_PACKAGE:
        return [f"{source.path}: {own} is in no layer; give it a row in LAYERS"]
    allowed = LAYERS.get(own, set())
    found = []
    for item in imports(source):
        target = layer_of(f"{item.module}.{item.name}" if item.module == ROOT_PACKAGE else item.module)
        if target not in LAYERS and target.startswith("titan."):
            target = ROOT_PACKAGE  # a name of the package, such as __version__
        where = f"{source.path}:{item.line}"
        if target in LAYERS or target == ROOT_PACKAGE:
            if target not in {own, *allowed} and not (target == ROOT_PACKAGE and own != "titan_sdk"):
                found.append(f"{where}: {own} may not import {target}")
        elif target in SQL_MODULES and own != "titan.storage":
            found.append(f"{where}: {target} is for titan.storage alone")
        elif target in sys.stdlib_module_names:
            if own == "titan.core" and target not in PURE_STDLIB:
                found.append(f"{where}: titan.core is pure and may not import {target}")
        elif target not in LIBRARIES[own] | ALSO.get(source.module, set()):
            found.append(f"{where}: {own} may not import the library {target}; see LIBRARIES")
    return found


def standalone_violations(source: Source) -> list[str]:
    own = next((name for name in STANDALONE if f"{source.module}.".startswith(f"{name}.")), None)
    if own is None:
        return []
    foreign = [
        item
        for item in imports(source)
        if not f"{item.module}.".startswith(f"{own}.")
        and layer_of(item.module) not in sys.stdlib_module_names | STANDALONE[own]
    ]
    return [f"{source.path}:{item.line}: {own} stands alone and may not import {item.module}" for item in foreign]


def violations_of(text: str, module: str) -> list[str]:
    return layer_violations(parse(text, module, module.replace(".", "/") + ".py"))


def test_every_file_imports_only_lower_layers() -> None:
    found = [line for source in read_tree("src") for line in layer_violations(source)]
    assert not found, report(found)


def test_an_upward_import_is_found_wherever_it_hides() -> None:
    assert violations_of("from titan.core.states import FINAL", "titan.model.spec")
    assert violations_of("def f():\n    import titan.master.engine", "titan.storage.journal")
    assert violations_of("if TYPE_CHECKING:\n    from titan.cli import main", "titan.master.auth")
    assert violations_of("from titan import cli", "titan.model.spec")
    assert violations_of("from ..core import states", "titan.model.spec")
    assert violations_of("import titan.model.ids", "titan_sdk.client")
    assert violations_of("from titan import __version__", "titan_sdk.client")


def test_master_and_worker_do_not_know_each_other() -> None:
    assert violations_of("from titan.worker.logs import Spool", "titan.master.links")
    assert violations_of("from titan.master.links import Link", "titan.worker.process")
    assert not violations_of("from titan.model.wire import Grant", "titan.worker.process")


def test_the_core_cannot_reach_the_world() -> None:
    for text in ("import time", "import asyncio", "from random import random", "import os.path", "import titan_sdk"):
        assert violations_of(text, "titan.core.scheduler"), text
    assert not violations_of("import heapq\nimport msgspec\nfrom titan.model import ids", "titan.core.queues")


def test_sql_and_libraries_stay_in_their_layer() -> None:
    assert violations_of("import sqlite3", "titan.master.engine")
    assert violations_of("from sqlalchemy import text", "titan.master.engine")
    assert violations_of("import yaml", "titan_sdk.files")
    assert not violations_of("import yaml", "titan_sdk.pipeline_nodes")
    assert violations_of("import click", "titan.worker.process")
    assert not violations_of("from sqlalchemy import text\nimport sqlite3", "titan.storage.queries")


def test_what_runs_beside_a_job_stands_alone() -> None:
    found = [line for source in read_tree("src/titan/worker") for line in standalone_violations(source)]
    assert not found, report(found)


def test_a_launcher_that_leans_on_titan_is_found() -> None:
    for text in ("import msgspec", "from titan.model import ids", "from titan.worker.logs import Spool"):
        assert standalone_violations(parse(text, "titan.worker.launcher.main")), text
    text = "import os\nimport struct\nfrom titan.worker.launcher import frames"
    assert not standalone_violations(parse(text, "titan.worker.launcher.main"))
    assert not standalone_violations(parse("import msgspec", "titan.worker.process"))


def test_a_new_package_must_be_placed() -> None:
    assert violations_of("import re", "titan.extras.thing") == [
        "titan/extras/thing.py: titan.extras is in no layer; give it a row in LAYERS"
    ]
