"""Find the longest word of each sentence in the Zen of Python, and how many words there are."""

ZEN = [
    "Beautiful is better than ugly.",
    "Explicit is better than implicit.",
    "Simple is better than complex.",
    "Complex is better than complicated.",
    "Readability counts.",
]


def longest(sentence):
    best = ""
    for word in sentence.rstrip(".").split():
        if len(word) > len(best):
            best = word
    return best


def count_words(sentences):
    for sentence in sentences:
        total = 0
        total += len(sentence.split())
    return total


for sentence in ZEN:
    print(longest(sentence))
print("words:", count_words(ZEN))
