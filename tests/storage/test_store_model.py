"""The store against a dict: any sequence of operations gives the same answers and the same content."""

from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.storage.backend import NOW_MS, Storage
from titan.model.store import (
    IdempotencyKey,
    Prune,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StoreOperation,
    StorePut,
    StoreRefused,
    StoreRemove,
)
from titan.storage import kv

KEYS = st.sampled_from(["a", "a\x00", "ab", "é"])
VALUES = st.one_of(st.sampled_from(["", "0", "7", "-3", "x"]), st.sampled_from([b"", b"7"]))
MEMBERS = st.sampled_from(["m", "n"])
REFUSED = "refused"


class Model:
    """What the store promises, as a dict of values and sets with an end."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[Any, int | None]] = {}

    def get(self, key: str, now_ms: int) -> Any:
        value, expires_ms = self.content.get(key, (None, None))
        return None if expires_ms is not None and expires_ms <= now_ms else value

    def apply(self, operation: StoreOperation) -> Any:
        key, now_ms = operation.key, operation.now_ms
        found = self.get(key, now_ms)
        if found is None:
            self.content.pop(key, None)
        expires_ms = self.content.get(key, (None, None))[1]
        is_set = isinstance(found, frozenset)
        match operation:
            case StorePut(ttl_s=ttl_s):
                if is_set:
                    return REFUSED
                self.content[key] = (operation.value, None if ttl_s is None else now_ms + int(ttl_s * 1000))
                return None
            case StoreDelete():
                return self.content.pop(key, None) is not None
            case StoreIncr():
                if found is not None and (not isinstance(found, str) or not found.removeprefix("-").isdecimal()):
                    return REFUSED
                self.content[key] = (str(int(found or "0") + operation.by), expires_ms)
                return self.content[key][0]
            case StoreCas():
                if is_set or found != operation.expect or type(found) is not type(operation.expect):
                    return False
                self.content.pop(key, None)
                if operation.value is not None:
                    self.content[key] = (operation.value, expires_ms)
                return True
            case StoreAdd() | StoreRemove():
                return self.change_set(operation, found)

    def change_set(self, operation: StoreAdd | StoreRemove, found: Any) -> Any:
        if found is not None and not isinstance(found, frozenset):
            return REFUSED
        before = found or frozenset()
        after = before | {operation.member} if isinstance(operation, StoreAdd) else before - {operation.member}
        self.content[operation.key] = (after, None)
        if not after:
            del self.content[operation.key]
        return after != before


class StoreMachine(RuleBasedStateMachine):
    """Operations gather in an open batch; it commits, is killed, or is undone, as batches are."""

    @initialize(folder=st.uuids())
    def begin(self, folder: Any) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory(prefix=f"titan-{folder}")
        self.storage = Storage(Path(self.folder.name) / "home")
        self.model = Model()
        self.now_ms = NOW_MS
        self.open: list[tuple[StoreOperation, Any]] = []
        self.calls = 0

    def add(self, operation: StoreOperation) -> None:
        self.open.append((operation, self.model.apply(operation)))

    def key(self) -> IdempotencyKey:
        self.calls += 1
        return IdempotencyKey(f"call {self.calls}", b"h", self.now_ms + 5_000)

    @rule(key=KEYS, value=VALUES, ttl_s=st.sampled_from([None, 0.5, 2.0]), guarded=st.booleans())
    def put(self, key: str, value: Any, ttl_s: float | None, guarded: bool) -> None:
        self.add(StorePut(key, value, self.now_ms, ttl_s, self.key() if guarded else None))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.add(StoreDelete(key, self.now_ms))

    @rule(key=KEYS, by=st.integers(-5, 5))
    def incr(self, key: str, by: int) -> None:
        self.add(StoreIncr(key, by, self.now_ms, self.key()))

    @rule(key=KEYS, expect=st.one_of(st.none(), VALUES), value=st.one_of(st.none(), VALUES))
    def cas(self, key: str, expect: Any, value: Any) -> None:
        self.add(StoreCas(key, expect, value, self.now_ms))

    @rule(key=KEYS, member=MEMBERS, add=st.booleans())
    def member(self, key: str, member: str, add: bool) -> None:
        self.add((StoreAdd if add else StoreRemove)(key, member, self.now_ms))

    @precondition(lambda self: self.open and self.open[-1][1] != REFUSED and self.open[-1][0].idempotency)
    @rule()
    def resend(self) -> None:
        self.open.append(self.open[-1])

    @rule(ms=st.sampled_from([1, 400, 2_000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def prune(self) -> None:
        self.commit()
        self.storage.one(Prune(self.now_ms))

    @rule()
    def restart(self) -> None:
        self.commit()
        self.storage.reopen()

    @rule()
    def commit(self) -> None:
        sent, self.open = self.open, []
        results = self.storage.do(*(operation for operation, _ in sent))
        found = [REFUSED if isinstance(result, StoreRefused) else result for result in results]
        assert found == [wanted for _, wanted in sent]

    @invariant()
    def same_content(self) -> None:
        if self.open:
            return
        keys = self.storage.database.read(lambda c: kv.list_keys(c, "", 100, None, self.now_ms)).keys
        wanted = {key: self.model.get(key, self.now_ms) for key in self.model.content}
        assert {*keys} == {key for key, value in wanted.items() if value is not None}
        for key in keys:
            if isinstance(wanted[key], frozenset):
                found: Any = self.storage.database.read(lambda c, k=key: kv.members(c, k, self.now_ms))  # type: ignore[misc]
                assert frozenset(found) == wanted[key]
            else:
                found = self.storage.database.read(lambda c, k=key: kv.get(c, k, self.now_ms))  # type: ignore[misc]
                assert (found, type(found)) == (wanted[key], type(wanted[key]))

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.storage.close()
            self.folder.cleanup()


StoreMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestStore = StoreMachine.TestCase
