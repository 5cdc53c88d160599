"""A cluster for one test, as the acceptance tests have it."""

from tests.acceptance.conftest import own_cluster

__all__ = ["own_cluster"]
