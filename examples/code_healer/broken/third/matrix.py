"""Print a magic square and check its sums."""

SQUARE = [
    [16, 3, 2, 13],
    [5, 10, 11, 8],
    [9, 6, 7, 12],
    [4, 15, 14, 1],
]


def sums(square):
    rows = [sum(row) for row in square]
    columns = [sum(column) for column in zip(*square)]
    size = len(square)
    diagonals = [sum(square[n][n] for n in range(size)), sum(square[n][size - 1 - n] for n in range(size))]
    return (rows + columns + diagonals


def is_magic(square):
    return len(set(sums(square))) == 1


for row in SQUARE:
    print(" ".join(f"{number:2}" for number in row))
if is_magic(SQUARE):
    print("magic, each sum is", sums(SQUARE)[0])
else:
    print("not magic:", sums(SQUARE))
