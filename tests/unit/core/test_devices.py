"""GPUs: one a job that asks for one, wherever a worker has counted its own; elsewhere GPU is a plain tag."""

from tests.unit.core.harness import Harness, job
from titan.core import matching, reasons
from titan.core.events import WorkerConnected
from titan.model.spec import JobSpec
from titan.model.states import JobState
from titan.model.wire import Held

TAGS = ("GENERAL", "GPU")


def gpu(job_id: str, **fields: object) -> JobSpec:
    return job(job_id, requirement=("GPU",), **fields)


def test_each_gpu_job_has_a_device_and_the_other_slots_serve_the_rest() -> None:
    h = Harness()
    h.worker("w", 4, TAGS, devices=("0", "1"))
    run_id = h.submit(*(gpu(f"g{number}") for number in range(3)), job("a"), job("b"), job("c"))
    states = h.states(run_id)
    assert [states[name] for name in ("g0", "g1", "g2")] == [JobState.ASSIGNED, JobState.ASSIGNED, JobState.QUEUED]
    assert [states[name] for name in "abc"] == [JobState.ASSIGNED, JobState.ASSIGNED, JobState.QUEUED]
    h.end(run_id, "a")
    assert (h.state(run_id, "g2"), h.state(run_id, "c")) == (JobState.QUEUED, JobState.ASSIGNED)
    h.end(run_id, "g0")
    assert h.state(run_id, "g2") == JobState.ASSIGNED


def test_many_workers_share_gpu_jobs_by_their_free_devices() -> None:
    h = Harness()
    h.worker("a", 8, TAGS, devices=("0",))
    h.worker("b", 8, TAGS, devices=("0", "1"))
    h.worker("plain", 8)
    run_id = h.submit(*(gpu(f"g{number}") for number in range(5)))
    assert sorted(h.job(run_id, f"g{number}")["worker"] for number in range(5)) == ["", "", "a", "b", "b"]
    assert h.scheduler.explain(run_id, "g4", h.now).details["workers"] == {  # type: ignore[union-attr]
        matching.NO_FREE_DEVICE: ["a", "b"], matching.LACKS_CAPABILITY: ["plain"]
    }  # fmt: skip


def test_without_a_device_counted_the_tag_is_one_like_others() -> None:
    h = Harness()
    h.worker("w", 2, TAGS)
    run_id = h.submit(gpu("a"), gpu("b"), gpu("c"))
    assert [h.state(run_id, name) for name in "abc"] == [JobState.ASSIGNED, JobState.ASSIGNED, JobState.QUEUED]
    assert h.reason(run_id, "c") == reasons.WAIT_SLOTS


def test_a_device_is_held_over_reconnects_and_starts_of_the_master() -> None:
    h = Harness()
    h.worker("w", 4, TAGS, devices=("0",))
    run_id = h.submit(gpu("a"), gpu("b"))
    h.start(run_id, "a")
    held = [Held(h.job(run_id, "a")["fence"], True)]
    h.worker("w", 4, TAGS, held=held, devices=("0",))
    assert h.reason(run_id, "b") == reasons.WAIT_DEVICE
    h.crash()
    h.worker("w", 4, TAGS, held=held, incarnation="2", predecessor="1", devices=("0",))
    assert h.reason(run_id, "b") == reasons.WAIT_DEVICE
    h.end(run_id, "a")
    assert h.state(run_id, "b") == JobState.ASSIGNED


def test_a_worker_that_comes_back_with_fewer_devices_is_not_overfilled() -> None:
    h = Harness()
    h.worker("w", 4, TAGS, devices=("0", "1"))
    run_id = h.submit(gpu("a"), gpu("b"), gpu("c"))
    held = tuple(Held(h.job(run_id, name)["fence"], True) for name in "ab")
    h.tell(WorkerConnected("w", "1", "boot", TAGS, 4, held, devices=("0",)))
    h.end(run_id, "a")
    assert h.state(run_id, "c") == JobState.QUEUED
    h.end(run_id, "b")
    assert h.state(run_id, "c") == JobState.ASSIGNED


def test_the_list_of_workers_counts_them() -> None:
    h = Harness()
    h.worker("w", 4, TAGS, devices=("0", "1"))
    h.worker("x")
    assert [worker["devices"] for worker in h.scheduler.worker_list()] == [2, 0]
