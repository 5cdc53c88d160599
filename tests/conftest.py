"""What holds for every test: no settings of the caller's shell, and no hypothesis deadline on a busy machine."""

import os

from hypothesis import settings

for name in [name for name in os.environ if name.startswith("TITAN_")]:
    del os.environ[name]
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"  # a profile of the caller's would lead to another Master

settings.register_profile("titan", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.register_profile("long", settings.get_profile("titan"), max_examples=5_000)  # by hand: docs/suites.md
settings.load_profile("titan")
