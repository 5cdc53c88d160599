"""Draw how long the words of a text are."""

from collections import Counter

TEXT = """There should be one and preferably only one obvious way to do it
although that way may not be obvious at first unless you are Dutch"""


def lengths(text):
    return Counter(len(word) for word in text.split())


def bars(counts, width=20):
    top = max(counts.values())
    for length in sorted(counts):
        bar = "#" * (counts[length] / top * width)
        yield f"{length:>2} {bar} {counts[length]}"


for row in bars(lengths(TEXT)):
    print(row)
print("words: " + str(sum(lengths(TEXT).values())))
