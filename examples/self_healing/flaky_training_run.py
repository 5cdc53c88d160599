"""Count which letter follows which in Python's own documentation, with a native kernel that has a bug.

After each chunk the counts go to the store, so that whoever comes next need not begin again.
"""

import ctypes
import json
import os
from collections import Counter
from itertools import pairwise
from pydoc_data.topics import topics

from titan_sdk import TitanClient

CHUNKS = 6
FIRST_BAD_CHUNK = 3


def native_copy(text: str, chunk: int) -> str:
    """Copy the text as a C extension would; from one chunk on the source is a null pointer."""
    data = text.encode()
    buffer = ctypes.create_string_buffer(len(data))
    source = None if chunk >= FIRST_BAD_CHUNK else data
    ctypes.memmove(buffer, source, len(data))
    return buffer.raw.decode()


corpus = "".join(topics[name] for name in sorted(topics))
size = -(-len(corpus) // CHUNKS)
pairs: Counter[str] = Counter()
with TitanClient() as client:
    for chunk in range(CHUNKS):
        text = native_copy(corpus[chunk * size : (chunk + 1) * size], chunk)
        pairs.update(a + b for a, b in pairwise(text.lower()) if a.isalpha() and b.isalpha())
        client.store_put(f"training/{os.environ['TITAN_RUN_ID']}", json.dumps({"chunks": chunk + 1, "pairs": pairs}))
        print(f"chunk {chunk + 1} of {CHUNKS}: {sum(pairs.values()):,} pairs")
