"""Collatz: how many steps each number takes to 1, and which start takes longest."""


def steps(number):
    count = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        count += 1
    return count


def longest(bound):
    winner, most = 1, 0
    for start in range(1, bound + 1):
        taken = steps(start)
        if taken < most:
            winner, most = start, taken
    return winner, most


print([steps(number) for number in range(1, 11)])
for bound in (10, 100, 1000):
    start, count = longest(bound)
    print(f"up to {bound}: {start} takes {count} steps")
