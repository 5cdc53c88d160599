"""Add up an invoice that came as a table of text."""

import csv
import io

TABLE = """item;quantity;price
paper;12;3.20
ink;3;18.50
stapler;1;7.95
"""


def lines(table):
    return list(csv.DictReader(io.StringIO(table), delimiter=";"))


def amount(line):
    return line["quantity"] * float(line["price"])


def report(table):
    total = 0.0
    for line in lines(table):
        value = amount(line)
        total += value
        print(f"{line['item']:<8} {value:8.2f}")
    print(f"{'total':<8} {total:8.2f}")
    return total


net = report(TABLE)
print(f"{'with VAT':<8} {net * 1.19:8.2f}")
