"""Add the shards up and print the survey: this job's log is the result."""

import json
import os
import sys
from collections import Counter

from titan_sdk import TitanClient

prefix = f"survey/{os.environ['TITAN_RUN_ID']}"
with TitanClient() as client:
    shards = [json.loads(client.store_get(f"{prefix}/found/{shard}")) for shard in range(int(sys.argv[1]))]

totals = {what: sum(shard[what] for shard in shards) for what in ("files", "lines", "functions")}
imported = sum((Counter(shard["imported"]) for shard in shards), Counter())
longest = sorted((tuple(item) for shard in shards for item in shard["longest"]), reverse=True)[:3]

print(f"Python {sys.version.split()[0]}: {totals['files']} files, {totals['lines']:,} lines,", end=" ")
print(f"{totals['functions']:,} functions")
print("most imported: " + ", ".join(f"{name} {count}" for name, count in imported.most_common(6)))
print("longest functions: " + "; ".join(f"{name} ({lines} lines)" for lines, name in longest))
