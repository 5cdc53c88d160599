"""Count words."""

import json
import os
import re
from collections import Counter

from titan_sdk import TitanClient

prefix = f"diamond/{os.environ['TITAN_RUN_ID']}"
with TitanClient() as client:
    counts = Counter(re.findall(r"[a-z]{4,}", str(client.store_get(f"{prefix}/text")).lower()))
    client.store_put(f"{prefix}/words", json.dumps(counts.most_common(5)))
print(f"{sum(counts.values()):,} words of four letters and more")
