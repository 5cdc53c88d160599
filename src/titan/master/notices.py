"""What the store's operations mean to others: news for those who watch keys, weight for the batch they ride in."""

from typing import Any

from titan.core.commit import COST_BYTES
from titan.core.events import News
from titan.model.store import (
    KeyReused,
    Operation,
    Prune,
    PublishArtifact,
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

_WORDS = {
    StorePut: "put",
    StoreDelete: "delete",
    StoreIncr: "incr",
    StoreCas: "cas",
    StoreAdd: "sadd",
    StoreRemove: "srem",
}


def store_news(operation: Operation, result: Any) -> list[News]:
    """Return the news of an operation that changed the store: kind "store", data {"key", "op"}; [] for any other."""
    if isinstance(result, StoreRefused | KeyReused):
        return []
    if isinstance(operation, StoreMany):
        pairs = zip(operation.operations, result, strict=True)
        return [one for single, answer in pairs for one in store_news(single, answer)]
    word = _WORDS.get(type(operation))
    if word is None or result is False:
        return []
    return [News("store", "", "", {"key": operation.key, "op": word})]  # type: ignore[union-attr]


def data_bytes(operation: Operation) -> int:
    """Return how much an operation makes a transaction write, in bytes; rows beyond the first count as a page each."""
    match operation:
        case StorePut():
            return len(operation.value)
        case StoreCas():
            return len(operation.value or "")
        case UploadBlob():
            return len(operation.data or b"")
        case UploadFile():
            return len(operation.blob.data or b"")
        case PublishArtifact():
            return len(operation.data or b"")
        case StoreMany():
            return sum(COST_BYTES + data_bytes(each) for each in operation.operations)
        case Prune() | SweepStage():
            return operation.rows_max * COST_BYTES
        case _:
            return 0
