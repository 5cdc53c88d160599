"""What holds for every test: no settings of the caller's shell, and no hypothesis deadline on a busy machine."""

import os

import pytest
from hypothesis import settings

for name in [name for name in os.environ if name.startswith("TITAN_")]:
    del os.environ[name]

settings.register_profile("titan", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.register_profile("long", settings.get_profile("titan"), max_examples=5_000)  # by hand: docs/suites.md
settings.load_profile("titan")

# The port that the documentation names: whoever needs it has it to himself.
PAGE_FILES = ("test_page.py", "test_tutorial.py")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, where they share what is dear to make (`--dist loadgroup`)."""
    for item in items:
        group = "page" if item.path.name in PAGE_FILES else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
