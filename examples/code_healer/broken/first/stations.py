"""Print the mean temperature of each weather station, warmest first."""

STATIONS = {
    "Zugspitze": [-11.2, -11.0, -8.9, -5.8, -1.1, 1.9],
    "Potsdam": [0.4, 1.4, 4.7, 9.7, 14.4, 17.6],
    "Freiburg": [2.5, 3.6, 7.4, 11.4, 15.7, 19.1],
    "Helgoland": [3.9, 3.3, 4.5, 7.7, 11.6, 14.9]


def mean(values):
    return sum(values) / len(values)


def ranking(stations):
    means = {name: mean(values) for name, values in stations.items()}
    return sorted(means.items(), key=lambda item: item[1], reverse=True)


for place, (name, value) in enumerate(ranking(STATIONS), start=1):
    print(f"{place}. {name:<10} {value:6.2f}")
