"""What a store operation tells those who watch keys, and what it weighs in its batch."""

import pytest

from titan.core.commit import COST_BYTES
from titan.core.events import News
from titan.master.notices import data_bytes, store_news
from titan.model.store import (
    KeyReused,
    Operation,
    Prune,
    Result,
    StoreAdd,
    StoreCas,
    StoreDelete,
    StoreIncr,
    StoreMany,
    StorePut,
    StoreRefused,
    StoreRemove,
    SweepStage,
    UploadBlob,
    UploadFile,
)

NOW = 1
BLOB = UploadBlob("a" * 64, 5, b"hello", NOW)


def told(key: str, word: str) -> News:
    return News("store", "", "", {"key": key, "op": word})


@pytest.mark.parametrize(
    ("operation", "result", "news"),
    [
        (StorePut("k", "v", NOW), None, [told("k", "put")]),
        (StoreDelete("k", NOW), True, [told("k", "delete")]),
        (StoreDelete("k", NOW), False, []),
        (StoreIncr("k", 1, NOW), "0", [told("k", "incr")]),
        (StoreIncr("k", 1, NOW), StoreRefused("invalid", "no number"), []),
        (StoreCas("k", None, "v", NOW), True, [told("k", "cas")]),
        (StoreCas("k", None, "v", NOW), False, []),
        (StoreAdd("k", "m", NOW), True, [told("k", "sadd")]),
        (StoreRemove("k", "m", NOW), False, []),
        (StorePut("k", "v", NOW), KeyReused("once"), []),
        (BLOB, None, []),
        (Prune(NOW), 3, []),
        (
            StoreMany((StorePut("a", "v", NOW), StoreCas("b", "x", "y", NOW), StoreAdd("c", "m", NOW)), NOW),
            [None, False, True],
            [told("a", "put"), told("c", "sadd")],
        ),
    ],
)
def test_only_what_changed_the_store_is_told(operation: Operation, result: Result, news: list[News]) -> None:
    assert store_news(operation, result) == news


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        (StorePut("k", "12345", NOW), 5),
        (StoreCas("k", None, b"123", NOW), 3),
        (StoreCas("k", "123", None, NOW), 0),
        (StoreIncr("k", 1, NOW), 0),
        (BLOB, 5),
        (UploadBlob("a" * 64, 10**9, None, NOW), 0),
        (UploadFile("f.py", BLOB, NOW), 5),
        (StoreMany((StorePut("k", "12345", NOW),) * 3, NOW), 3 * (COST_BYTES + 5)),
        (Prune(NOW, 500), 500 * COST_BYTES),
        (SweepStage("r", 500), 500 * COST_BYTES),
    ],
)
def test_an_operation_weighs_what_it_writes(operation: Operation, size: int) -> None:
    assert data_bytes(operation) == size
