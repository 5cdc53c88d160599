"""Say how many days lie between the releases of Python 3, and on which weekday each came."""

import datetime

RELEASES = {
    "3.8": "2019-10-14",
    "3.9": "2020-10-05",
    "3.10": "2021-10-04",
    "3.11": "2022-10-24",
    "3.12": "2023-10-02",
}


def parse(text):
    return datetime.strptime(text, "%Y-%m-%d").date()


def gaps(releases):
    days = [parse(text) for text in releases.values()]
    return [(later - earlier).days for earlier, later in zip(days, days[1:])]


for version, text in RELEASES.items():
    print(version, parse(text).strftime("%A"))
print("days between:", *gaps(RELEASES))
print("longest wait:", max(gaps(RELEASES)))
