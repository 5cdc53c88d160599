"""Count letters."""

import json
import os
from collections import Counter

from titan_sdk import TitanClient

prefix = f"diamond/{os.environ['TITAN_RUN_ID']}"
with TitanClient() as client:
    text = str(client.store_get(f"{prefix}/text")).lower()
    counts = Counter(letter for letter in text if letter.isalpha())
    client.store_put(f"{prefix}/letters", json.dumps(counts.most_common(5)))
print(f"{sum(counts.values()):,} letters")
