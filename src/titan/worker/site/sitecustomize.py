"""Runs at the start of every Python that a job starts, however it starts it.

Output becomes UTF-8 and leaves line by line, so that stdout and stderr keep their order in the log and a
crash loses nothing that was printed. A `sitecustomize` of the user's own runs afterwards, unaware of this.
"""

import os
import sys


def _arrange_output() -> None:
    # None: the program was started with it closed.
    if sys.stdout is not None:
        # Arguments and file names that are no UTF-8 are printed as the bytes they are.
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=True)  # type: ignore[union-attr]
    if sys.stderr is not None:
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]


def _run_the_users() -> None:
    here = os.path.dirname(__file__)
    if here not in sys.path:
        return  # found by another spelling of its folder: what comes after it cannot be told
    at = sys.path.index(here)
    del sys.path[at]
    ours = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = ours
    finally:
        sys.path.insert(at, here)


_arrange_output()
_run_the_users()
