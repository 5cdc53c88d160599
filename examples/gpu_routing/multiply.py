"""Raise the matrix to a high power: where letters settle. Plain Python stands in for your GPU library.

On a worker with real devices CUDA_VISIBLE_DEVICES names the one that is this job's alone.
"""

import json
import os
from string import ascii_lowercase

from titan_sdk import TitanClient

with TitanClient() as client:
    matrix = json.loads(client.store_get(f"matrix/{os.environ['TITAN_RUN_ID']}"))
for _ in range(5):
    columns = list(zip(*matrix, strict=True))
    matrix = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in matrix]
device = os.environ.get("CUDA_VISIBLE_DEVICES") or "none: GPU is a plain tag on this worker"
frequent = sorted(zip(matrix[0], ascii_lowercase, strict=True), reverse=True)[:5]
print(f"GPU device: {device}")
print("letters in the long run: " + ", ".join(f"{letter} {100 * share:.1f} %" for share, letter in frequent))
