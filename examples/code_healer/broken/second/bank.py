"""What a deposit grows to when interest is added each year."""


def grow(deposit, percent, years):
    history = []
    balance = deposit
    for year in range(1, years):
        balance += balance * percent / 100
        history.append((year, round(balance, 2)))
    return history


def years_to_double(percent):
    balance, years = 1.0, 0
    while balance < 2:
        balance *= 1 + percent / 100
        years += 1
    return years


for year, balance in grow(1000, 4, 5):
    print(f"year {year}: {balance:.2f}")
for percent in (2, 4, 8):
    print(f"at {percent} % it doubles in {years_to_double(percent)} years")
