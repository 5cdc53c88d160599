"""Put both counts side by side."""

import json
import os

from titan_sdk import TitanClient

prefix = f"diamond/{os.environ['TITAN_RUN_ID']}"
with TitanClient() as client:
    letters, words = (json.loads(str(client.store_get(f"{prefix}/{name}"))) for name in ("letters", "words"))
for (letter, times), (word, often) in zip(letters, words, strict=True):
    print(f"{letter} {times:>8,}   {word:<10} {often:>6,}")
