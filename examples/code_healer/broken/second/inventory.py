"""A small stock of things: put in, take out, list."""


class Stock:
    def __init__(self):
        self.pieces = {}

    def put(self, name, count):
        self.pieces[name] = self.pieces.get(name, 0) + count

    def take(self, name, count):
        if self.pieces.get(name, 0) < count:
            raise ValueError(f"only {self.pieces.get(name, 0)} {name} left")
        self.pieces[name] -= count

    def listing(self):
        for name in sorted(self.peices):
            yield f"{name}: {self.pieces[name]}"


stock = Stock()
stock.put("screws", 200)
stock.put("nails", 80)
stock.take("screws", 150)
try:
    stock.take("nails", 100)
except ValueError as error:
    print("refused:", error)
for line in stock.listing():
    print(line)
