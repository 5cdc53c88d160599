"""Add the parts up; the summary goes to the store, and its first lines to the log."""

import json
import os
import sys
from collections import Counter

from titan_sdk import TitanClient

prefix = f"survey/{os.environ['TITAN_RUN_ID']}"
with TitanClient() as client:
    parts = [json.loads(client.store_get(f"{prefix}/found/{part}")) for part in range(int(sys.argv[1]))]
    modules: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part["modules"].items():
            modules.setdefault(name, Counter()).update(counts)
    summary = {
        "python": sys.version.split()[0],
        "modules": modules,
        "imported": sum((Counter(part["imported"]) for part in parts), Counter()).most_common(12),
        "functions": sorted((tuple(item) for part in parts for item in part["functions"]), reverse=True)[:10],
        "totals": sum(modules.values(), Counter()),
    }
    client.store_put(f"{prefix}/summary", json.dumps(summary))

totals = summary["totals"]
print(f"Python {summary['python']}: {totals['files']} files, {totals['lines']:,} lines,", end=" ")
print(f"{totals['functions']:,} functions")
largest = sorted(modules.items(), key=lambda item: -item[1]["lines"])[:8]
print(f"{'module':<14}{'files':>6}{'lines':>9}{'functions':>11}{'documented':>12}")
for name, counts in largest:
    documented = f"{100 * counts['documented'] / counts['public']:.0f} %" if counts["public"] else "-"
    print(f"{name:<14}{counts['files']:>6}{counts['lines']:>9,}{counts['functions']:>11,}{documented:>12}")
print("most imported: " + ", ".join(f"{name} {count}" for name, count in summary["imported"][:6]))
