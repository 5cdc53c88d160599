"""Go on with the training run that crashed, from its last checkpoint and without the native kernel."""

import json
import sys
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

from titan_sdk import TitanClient

CHUNKS = 6

with TitanClient() as client:
    saved = json.loads(client.store_get(f"training/{sys.argv[1]}") or '{"chunks": 0, "pairs": {}}')

corpus = "".join(topics[name] for name in sorted(topics))
size = -(-len(corpus) // CHUNKS)
pairs = Counter(saved["pairs"])
print(f"safe mode: going on behind chunk {saved['chunks']}")
for chunk in range(saved["chunks"], CHUNKS):
    text = corpus[chunk * size : (chunk + 1) * size]
    pairs.update(a + b for a, b in pairwise(text.lower()) if a.isalpha() and b.isalpha())
    print(f"chunk {chunk + 1} of {CHUNKS}: {sum(pairs.values()):,} pairs")
print("most frequent: " + ", ".join(f"{pair} {count:,}" for pair, count in pairs.most_common(5)))
