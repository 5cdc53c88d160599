"""Write a matrix of real numbers: how often each letter follows each other one in Python's documentation."""

import json
import os
from itertools import pairwise
from pydoc_data.topics import topics
from string import ascii_lowercase

from titan_sdk import TitanClient

matrix = [[0.0] * 26 for _ in ascii_lowercase]
for a, b in pairwise("".join(topics.values()).lower()):
    if a in ascii_lowercase and b in ascii_lowercase:
        matrix[ord(a) - 97][ord(b) - 97] += 1
rows = [[count / (sum(row) or 1) for count in row] for row in matrix]
with TitanClient() as client:
    client.store_put(f"matrix/{os.environ['TITAN_RUN_ID']}", json.dumps(rows))
print("prepared a 26 x 26 matrix: which letter follows which")
