"""Judges the key-value store (34): one history a key, in the order of commits, that everybody's answers agree with.

The model applies what is committed, once a key of idempotency, and every result, whether of the commit or told to a
caller, has to be its own: no swap succeeds twice from one version. What is read is what the model holds at that
moment, so a read after an acknowledged write sees it.
"""

from typing import TYPE_CHECKING, Any

from tests.simulation.world import Broken
from titan.model.store import StoreCas, StoreIncr, StorePut

if TYPE_CHECKING:
    from tests.simulation.ground import Ground

NOTHING = object()
WRITING = frozenset({StorePut, StoreIncr, StoreCas})


class Cells:
    """`values` by cell, `results` by key of idempotency; by counter the keys that have `counted`, and were told so."""

    def __init__(self, ground: "Ground") -> None:
        self.ground = ground
        self.values: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self.put: set[tuple[str, Any]] = set()
        self.counted: dict[str, set[str]] = {}
        self.told: dict[str, set[str]] = {}

    def committed(self, operations: list[Any], results: list[Any]) -> None:
        """Operations are in the database, with these results."""
        for operation, result in zip(operations, results, strict=True):
            if type(operation) in WRITING:
                expected = self.apply(operation)
                if result != expected:
                    raise Broken("i34", f"{operation} resulted in {result}, after all before it in {expected}")

    def apply(self, operation: Any) -> Any:
        """Apply one to the model, unless its key was seen; return its result."""
        key = operation.idempotency.key if operation.idempotency else ""
        if key in self.results:
            return self.results[key]
        cell = operation.key
        result: Any = None
        match operation:
            case StorePut():
                self.values[cell] = operation.value
                self.put.add((cell, operation.value))
            case StoreIncr():
                result = self.values[cell] = str(int(self.values.get(cell, "0")) + operation.by)
                self.counted.setdefault(cell, set()).add(key)
            case StoreCas():
                result = self.values.get(cell) == operation.expect
                if result:
                    self.values[cell] = operation.value
        if key:
            self.results[key] = result
        return result

    def answered(self, operation: Any, answer: list[Any]) -> None:
        """A Master tells a caller the result of what it asked."""
        key = operation.idempotency.key if operation.idempotency else ""
        if not key:
            if (operation.key, operation.value) not in self.put:
                raise Broken("i1", f"{operation} is acknowledged and not in the database")
            return
        expected = self.results.get(key, NOTHING)
        if [expected] != answer:
            raise Broken("i34", f"{operation} is answered with {answer}, it was committed with {expected}")
        if isinstance(operation, StoreIncr):
            self.told.setdefault(operation.key, set()).add(key)

    def read(self, cell: str, answer: Any) -> None:
        """A Master answers what a cell holds."""
        if answer != self.values.get(cell):
            raise Broken("i34", f"{cell} reads as {answer}, committed is {self.values.get(cell)}")

    def finish(self) -> None:
        """Every counter has counted each key once, and the database says so."""
        for cell, keys in self.told.items():
            lost = keys - self.counted.get(cell, set())
            if lost:
                raise Broken("i34", f"{cell} has not counted {min(lost)}, which was told that it has")
        for cell, counted in self.counted.items():
            if self.values[cell] != str(len(counted)):
                raise Broken("i34", f"{cell} is {self.values[cell]}, {len(counted)} have counted themselves")
        for cell, value in self.values.items():
            self.read(cell, self.ground.store.value(cell, 0))
            if value is None:
                raise Broken("i34", f"{cell} holds None")
