"""List the standard library's files and deal them out: shard N of the run is a list of paths in the store."""

import json
import os
import sys
import sysconfig
from pathlib import Path

from titan_sdk import TitanClient

shards = int(sys.argv[1])
library = Path(sysconfig.get_path("stdlib"))
skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"}
files = sorted(path for path in library.rglob("*.py") if not skipped & set(path.relative_to(library).parts))

with TitanClient() as client:
    for shard in range(shards):
        # Every fourth file, not every fourth part: big packages are dealt to everybody.
        paths = [str(path) for path in files[shard::shards]]
        client.store_put(f"survey/{os.environ['TITAN_RUN_ID']}/files/{shard}", json.dumps(paths))
print(f"{len(files)} files below {library}, in {shards} shards")
