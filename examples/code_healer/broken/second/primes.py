"""Print the primes up to a bound, and the largest gap between two neighbours."""


def sieve(bound):
    flags = [True] * (bound + 1)
    flags[0:2] = [False, False]
    for number in range(2, int(bound**0.5) + 1):
        if flags[number]:
            for multiple in range(number * number, bound + 1, number):
                flags[multiple] = False
    return [number for number, prime in enumerate(flags) if prime]


def widest(primes):
    best = (0, None)
    for left, right in zip(primes, primes[1:]):
        if right - left > best[0]:
            best = (right - left, left)
        else
            continue
    return best


primes = sieve(60)
print(*primes)
gap, after = widest(primes)
print(f"widest gap: {gap}, after {after}")
