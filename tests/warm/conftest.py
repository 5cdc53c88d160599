"""The Master double and real workers of tests/worker."""

from tests.worker.conftest import home, master, start_worker

__all__ = ["home", "master", "start_worker"]
