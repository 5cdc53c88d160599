"""Rows of the database as the structs of `titan.core.rows`, and back to back with them the columns to select.

A snapshot turns hundreds of thousands of rows into structs, so this is plain positional code; words that repeat
(states, names of workers and files) become one object each, which halves the memory of a large run.
"""

from collections.abc import Sequence
from sys import intern
from typing import Any

import msgspec
from sqlalchemy import Column, Table

from titan.core.rows import AttemptRow, EdgeRow, JobRow, RunRow
from titan.model.states import AttemptState, JobState, RunState
from titan.storage.tables import attempts, edges, jobs, runs

_RUN_STATES = {state.value: state for state in RunState}
_JOB_STATES = {state.value: state for state in JobState}
_ATTEMPT_STATES = {state.value: state for state in AttemptState}


def _columns(table: Table, struct: type[msgspec.Struct]) -> Sequence[Column[Any]]:
    return [table.c[field] for field in struct.__struct_fields__]


RUN = _columns(runs, RunRow)
JOB = _columns(jobs, JobRow)
EDGE = _columns(edges, EdgeRow)
ATTEMPT = _columns(attempts, AttemptRow)


def run_row(r: Sequence[Any]) -> RunRow:
    """Return a row of the columns RUN as a struct."""
    return RunRow(
        intern(r[0]), r[1], _RUN_STATES[r[2]], r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], bool(r[11]),
        bool(r[12]), r[13], r[14], r[15], r[16], r[17], r[18], r[19],
    )  # fmt: skip


def job_row(r: Sequence[Any]) -> JobRow:
    """Return a row of the columns JOB as a struct."""
    return JobRow(
        intern(r[0]), r[1], r[2], r[3], intern(r[4]), r[5], intern(r[6]), _JOB_STATES[r[7]], intern(r[8]), r[9], r[10],
        r[11], intern(r[12]), r[13], r[14], r[15], bool(r[16]), intern(r[17]), r[18], r[19], r[20], r[21],
    )  # fmt: skip


def edge_row(r: Sequence[Any]) -> EdgeRow:
    """Return a row of the columns EDGE as a struct."""
    return EdgeRow(intern(r[0]), r[1], r[2])


def attempt_row(r: Sequence[Any]) -> AttemptRow:
    """Return a row of the columns ATTEMPT as a struct."""
    return AttemptRow(
        r[0], intern(r[1]), r[2], r[3], r[4], intern(r[5]), intern(r[6]), intern(r[7]), _ATTEMPT_STATES[r[8]], r[9],
        r[10], r[11], r[12], r[13], r[14], r[15], r[16], r[17], intern(r[18]),
    )  # fmt: skip
