"""A campaign puts together what its worker processes saw, and says plainly whether that was good enough."""

from collections.abc import Iterable

import pytest

from tests.simulation import campaign, coverage
from tests.simulation.campaign import Broken, Done, Task, Wish, report, run, seeds_of
from tests.simulation.mutants import MUTANTS, applied
from tests.simulation.simulation import run_seed

NAMES = """
answer-before-commit ageing-off batch-overtaken cancel-forgets completion-sent-once double-grant frame-applied-twice
generation-not-checked hello-ignored incarnation-ignored lease-by-wall-clock log-off-by-a-chunk memory-kept
no-fence-check no-grace no-idempotency outbox-forgets recall-believed released-by-any-parent retries-not-counted
slot-back-twice stale-leader timer-lost unknown-is-failed
"""


def test_every_bug_we_want_to_be_caught_is_a_mutant() -> None:
    assert sorted(MUTANTS) == sorted(NAMES.split())


@pytest.mark.parametrize("name", ["answer-before-commit", "no-idempotency", "double-grant", "timer-lost"])
def test_a_mutant_is_caught_and_leaves_nothing_behind(name: str) -> None:
    with applied(MUTANTS[name]):
        broken = [run_seed(seed).broken for seed in range(1, 11)]
    assert any(text and not text.startswith("raised") for text in broken)
    assert not run_seed(2).broken


def told(wish: Wish, processes: int) -> tuple[bool, list[str]]:
    lines: list[str] = []
    good = run(wish, lines.append, processes)
    return good, [line for line in lines if " a second" not in line and " s" not in line[-3:]]


def test_a_campaign_tells_the_same_however_many_processes_share_it() -> None:
    tasks = (*seeds_of(0, range(1, 4)), Task(0, (7, 8)), Task(1, (1_000_001,)), Task(0, (1, 2, 3), "timer-lost"))
    first, second = told(Wish(tasks), 1), told(Wish(tasks), 2)
    assert first == second
    assert first[0]
    assert "timer-lost is caught by seed" in "".join(first[1])
    assert first[1][-1] == "7 passed, 0 failed"


def test_a_surviving_mutant_fails_the_campaign() -> None:
    good, lines = told(Wish((Task(0, (), "ageing-off"),)), 1)
    assert not good
    assert "SURVIVED" in lines[0]
    assert lines[-1] == "0 passed, 1 failed"


def reached(times: int, events: int = 1_000, broken: Iterable[Broken] = ()) -> Done:
    return Done(
        seeds=1, events=[events], commits=[30], simulated_ms=1, broken=list(broken),
        hits=dict.fromkeys(coverage.FAULTS, times), moves=dict.fromkeys(coverage.moves_of_the_tables(), times),
    )  # fmt: skip


def wrong(done: Done) -> list[str]:
    lines: list[str] = []
    count = report(done, 1.0, True, lines.append)
    found = [line for line in lines if line.startswith("wrong")]
    assert len(found) == count
    return found


def test_what_is_reached_too_rarely_is_wrong() -> None:
    assert wrong(reached(1_000)) == []
    assert len(wrong(reached(1_000, events=999))) == 1
    assert len(wrong(reached(999))) == len(coverage.FAULTS) + len(coverage.moves_of_the_tables())


def test_a_broken_seed_is_told_with_what_replays_it() -> None:
    lines: list[str] = []
    report(reached(1_000, broken=[Broken(1, 12, "i9: too soon")]), 1.0, False, lines.append)
    assert lines[-1] == "1 12  # i9: too soon"
    assert Broken(1, 12, "").command == "./dev sim --seed 12 --sql --trace"
    assert Broken(0, 12, "").command == "./dev sim --seed 12 --trace"


def test_an_exception_is_not_what_catches_a_mutant() -> None:
    assert not campaign.is_caught(Done(broken=[Broken(0, 1, "raised: KeyError: 1")]))
    assert campaign.is_caught(Done(broken=[Broken(0, 1, "raised: KeyError: 1"), Broken(0, 2, "i9: too soon")]))


def test_kept_seeds_are_read_with_their_level(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "seeds.txt"
    kept.write_text("# what they are\n0 12  # i9: too soon\n\n1 7\n")
    monkeypatch.setattr(campaign, "SEEDS_FILE", kept)
    assert list(campaign.kept()) == [Task(0, (12,)), Task(1, (7,))]


def test_the_kept_seeds_keep_every_promise_now() -> None:
    assert [(task, run_seed(task.seeds[0], task.level).broken) for task in campaign.kept()] == [
        (task, "") for task in campaign.kept()
    ]
