"""Group people by decade of birth, from a list in which not everybody said the year."""

PEOPLE = [
    ("Ada", "1815"),
    ("Grace", "1906"),
    ("Alan", "1912"),
    ("Hypatia", "unknown"),
    ("Edsger", "1930"),
    ("Barbara", "1939"),
]


def decade(year):
    return int(year) // 10 * 10


def groups(people):
    found = {}
    for name, year in people:
        start = decade(year)
        found.setdefault(start, []).append(name)
    return found


for start, names in sorted(groups(PEOPLE).items()):
    print(f"{start}s:", ", ".join(names))
