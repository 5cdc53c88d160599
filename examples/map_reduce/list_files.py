"""List the standard library's files and deal them out: part N of the run is a list of paths in the store."""

import json
import os
import sys
import sysconfig
from pathlib import Path

from titan_sdk import TitanClient

parts = int(sys.argv[1])
library = Path(sysconfig.get_path("stdlib"))
skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
files: list[Path] = []
for folder, below, names in os.walk(library):
    below[:] = [name for name in below if name not in skipped]
    files += [Path(folder, name) for name in names if name.endswith(".py")]
files.sort(key=lambda path: path.stat().st_size, reverse=True)

with TitanClient() as client:
    for part in range(parts):
        # Every eighth file of those sorted by size: large ones are dealt to everybody.
        paths = [str(path.relative_to(library)) for path in files[part::parts]]
        client.store_put(f"survey/{os.environ['TITAN_RUN_ID']}/files/{part}", json.dumps(paths))
print(f"{len(files)} files below {library}, in {parts} parts")
