"""Write years in Roman numerals and sort them by how long they are."""

PAIRS = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
         (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]


def roman(number):
    letters = ""
    for value, sign in PAIRS:
        while number >= value:
            letters += sign
            number -= value
    return letters


def value_of(letters):
    worth = {sign: value for value, sign in PAIRS}
    return reduce(lambda total, pair: total + (-worth[pair[0]] if worth[pair[0]] < worth.get(pair[1], 0) else worth[pair[0]]),
                  zip(letters, letters[1:] + " "), 0)


for year in (1991, 2008, 2024):
    print(year, roman(year), value_of(roman(year)))
