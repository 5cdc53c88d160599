"""Put a real text into the store: Python's own documentation of its language."""

import os
from pydoc_data.topics import topics

from titan_sdk import TitanClient

text = "\n".join(topics[name] for name in sorted(topics))
with TitanClient() as client:
    client.store_put(f"diamond/{os.environ['TITAN_RUN_ID']}/text", text)
print(f"{len(text):,} characters")
