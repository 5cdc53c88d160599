"""Fit how the time to parse depends on size and lines; every fourth row is kept back to test the fit.

Plain Python stands in for your GPU library; the job requires GPU all the same.
"""

import csv
import json
import sys
from pathlib import Path

from titan_sdk import TitanClient

Rows = list[tuple[list[float], float]]


def solve(matrix: list[list[float]]) -> list[float]:
    """Solve linear equations, each row its coefficients and then its value, by elimination."""
    size = len(matrix)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(matrix[row][column]))
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for row in range(size):
            if row != column:
                factor = matrix[row][column] / matrix[column][column]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[column], strict=True)]
    return [matrix[row][size] / matrix[row][row] for row in range(size)]


def fit(rows: Rows) -> list[float]:
    """Return the weights with the least squared error."""
    size = len(rows[0][0])
    sums = [
        [sum(x[i] * x[j] for x, _ in rows) for j in range(size)] + [sum(x[i] * y for x, y in rows)] for i in range(size)
    ]
    return solve(sums)


def explained(rows: Rows, weights: list[float]) -> float:
    """Return the share of the variance that the weights explain (R squared)."""
    mean = sum(y for _, y in rows) / len(rows)
    left = sum((y - sum(w * v for w, v in zip(weights, x, strict=True))) ** 2 for x, y in rows)
    return 1 - left / sum((y - mean) ** 2 for _, y in rows)


table, model = sys.argv[1:]
with TitanClient() as client:
    client.get_artifact(table, "table.csv")
    with Path("table.csv").open(newline="") as lines:
        rows = [([1.0, int(r["bytes"]) / 1000, int(r["lines"]) / 1000], float(r["ms"])) for r in csv.DictReader(lines)]
    weights = fit([row for number, row in enumerate(rows) if number % 4])
    score = explained(rows[::4], weights)
    Path("model.json").write_text(json.dumps({"weights": weights, "r_squared": score}))
    client.publish_artifact(model, "model.json")
print(f"ms to parse = {weights[0]:.2f} + {weights[1]:.3f} a kB + {weights[2]:.3f} a thousand lines")
print(f"R squared on rows that it had not seen: {score:.2f}")
