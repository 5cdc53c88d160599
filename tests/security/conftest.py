"""The Masters of the API's tests."""

from tests.api.conftest import master, own_master

__all__ = ["master", "own_master"]
