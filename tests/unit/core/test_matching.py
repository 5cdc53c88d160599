"""Which worker takes a job: who may, who should, and why the others may not."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from titan.core.matching import (
    IS_AWAY,
    IS_FULL,
    IS_NOT_THE_PINNED_ONE,
    LACKS_CAPABILITY,
    Candidates,
    refusal,
)
from titan.core.memory import Worker

GENERAL = frozenset({"GENERAL"})
GPU = frozenset({"GPU"})


def worker(name: str, tags: str = "GENERAL", slots: int = 2, used: int = 0, connected: bool = True) -> Worker:
    return Worker(
        name=name, incarnation="1", boot_id="b", capabilities=frozenset(tags.split()), slots=slots,
        connected=connected, renewed_ms=0, fences=set(range(used)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "tags", "pinned_to", "reason"),
    [
        (worker("w"), GENERAL, "", None),
        (worker("w"), GENERAL, "w", None),
        (worker("w", "GENERAL GPU"), GENERAL | GPU, "", None),
        (worker("w"), GENERAL, "v", IS_NOT_THE_PINNED_ONE),
        (worker("w"), GPU, "", LACKS_CAPABILITY),
        (worker("w", "GPU"), GENERAL, "", LACKS_CAPABILITY),
        (worker("w", "gpu"), GPU, "", LACKS_CAPABILITY),
        (worker("w", "GPU"), GPU | GENERAL, "", LACKS_CAPABILITY),
        (worker("w", connected=False), GENERAL, "", IS_AWAY),
        (worker("w", used=2), GENERAL, "", IS_FULL),
        (worker("w", slots=0), GENERAL, "", IS_FULL),
        # Of several reasons the one that lasts longest is told.
        (worker("w", connected=False), GPU, "", LACKS_CAPABILITY),
        (worker("w", used=2, connected=False), GENERAL, "", IS_AWAY),
        (worker("w", used=2), GPU, "v", IS_NOT_THE_PINNED_ONE),
    ],
)
def test_who_may_take_a_job(candidate: Worker, tags: frozenset[str], pinned_to: str, reason: str | None) -> None:
    assert refusal(candidate, tags, pinned_to) == reason
    assert (Candidates([candidate], tags, pinned_to).best() is candidate) == (reason is None)


@pytest.mark.parametrize(
    ("workers", "tags", "best"),
    [
        ([worker("a", used=1), worker("b")], GENERAL, "b"),
        ([worker("a", slots=4, used=2), worker("b", slots=2, used=1), worker("c", slots=8, used=3)], GENERAL, "c"),
        ([worker("b"), worker("a")], GENERAL, "a"),
        ([worker("a", "GENERAL GPU"), worker("b", used=1)], GENERAL, "b"),
        ([worker("a", "GENERAL GPU", used=1), worker("b", used=2)], GENERAL, "a"),
        ([worker("a", "GENERAL GPU", used=1), worker("b", "GENERAL GPU")], GPU, "b"),
        ([worker("a", "GENERAL BIG", used=1), worker("b", "GENERAL GPU")], GENERAL, "b"),
    ],
    ids=["free", "share", "name", "plain first", "plain full", "least loaded of the tagged", "tagged among tagged"],
)
def test_who_should_take_it(workers: list[Worker], tags: frozenset[str], best: str) -> None:
    found = Candidates(workers, tags, "").best()
    assert found is not None
    assert found.name == best


def naive(workers: list[Worker], tags: frozenset[str]) -> Worker | None:
    fit = [each for each in workers if refusal(each, tags, "") is None]
    tagged = {each.name: tags == GENERAL and each.capabilities != GENERAL for each in fit}
    return min(fit, key=lambda each: (tagged[each.name], len(each.fences) / each.slots, each.name), default=None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["GENERAL", "GENERAL GPU", "GPU"]), st.integers(0, 4), st.integers(0, 3)), max_size=6
    ),
    st.lists(st.sampled_from([GENERAL, GPU, GENERAL | GPU]), max_size=30),
)
def test_candidates_stay_right_while_workers_fill_up(
    shapes: list[tuple[str, int, int]], wanted: list[frozenset[str]]
) -> None:
    workers = [worker(f"w{number}", tags, slots, used) for number, (tags, slots, used) in enumerate(shapes)]
    candidates = {tags: Candidates(workers, tags, "") for tags in set(wanted)}
    for fence, tags in enumerate(wanted, 1_000):
        chosen = candidates[tags].best()
        assert chosen is naive(workers, tags)
        if chosen is not None:
            chosen.fences.add(fence)
            assert len(chosen.fences) <= chosen.slots
