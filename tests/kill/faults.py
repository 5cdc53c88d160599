"""The campaigns, one for each kind of fault."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.proxy import Proxy
from tests.kill.campaign import Campaign, Outcome, Say
from tests.kill.ledger import Key, Line, boot_ms, watch
from tests.kill.load import ALL_KINDS, LONG, Feeder, until
from titan_sdk import Run

# What is left of a killed worker's jobs has this long to be gone, and they this long to run again.
GONE_S = 2.0
AGAIN_S = 60.0
# What `titan up` waits before it starts a killed part again.
RESTART_S = 0.2
BUSY_S = 300.0
# A worker gives its jobs TERM this long before a lease ends, counted from its last answered renewal.
TERM_BEFORE_S = 15
RENEWED_S = 5
ASK_AFTER_MS = 2_000
SHORT_LEASE_S = 30


def kill_master(
    folder: Path, seed: int, say: Say, *, kills: int, away_s: tuple[float, float], slots: int, lease_s: int = 60,
    submitters: int = 3,
) -> Outcome:  # fmt: skip
    """Kill the Master `kills` times and keep it away for a while drawn from `away_s`; every job runs once.

    The long jobs fill the slots but for two, and 20 of them (fewer with fewer slots) outlast each absence.
    """
    living = max(1, slots - 2)
    least = min(20, max(1, living - 2))
    with Campaign(folder, f"master-{seed}", say, workers=["w1"], slots=slots) as campaign:
        feeder = campaign.feeder(living, (2 * away_s[1] + 5, 8 * away_s[1] + 10), lease_s, ("long",))
        campaign.submitters(submitters)
        for kill in range(1, kills + 1):
            campaign.pause(campaign.random.uniform(0.0, 2.0))
            say(f"kill {kill} of {kills}: {_master_away(campaign, feeder, least, away_s)}")
        return campaign.finish()


def _master_away(campaign: Campaign, feeder: Feeder, least: int, away_s: tuple[float, float]) -> str:
    absence_s = campaign.random.uniform(*away_s)
    if not until(lambda: feeder.outlasting(absence_s + 1) >= least, BUSY_S):
        campaign.broken.append(f"{least} long jobs did not run within {BUSY_S:.0f} s")
    spanning = feeder.outlasting(absence_s + 1)
    campaign.ledger.note("master", "master-killed")
    killed_ms = boot_ms()
    pid = campaign.parts.master.pid
    campaign.parts.master.kill()
    campaign.faults += 1
    campaign.pause(absence_s)
    begun_ms = boot_ms()
    campaign.parts.start(campaign.parts.master)
    campaign.measured("Master ready after its start", (boot_ms() - begun_ms) / 1000)
    # Two absences that no worker saw end are one long one.
    if not until(campaign.connected, BUSY_S):
        campaign.broken.append(f"the workers did not come back within {BUSY_S:.0f} s")
    silence_s = (boot_ms() - killed_ms) / 1000
    campaign.measured("workers connected again after the kill", silence_s)
    if silence_s > feeder.lease_s - TERM_BEFORE_S - RENEWED_S:
        # The machine was too slow for the promise to hold: the workers had to end their jobs.
        for worker in campaign.parts.workers:
            campaign.ledger.note(worker, "silenced")
        return f"Master {pid} away {silence_s:.1f} s with its slow start, longer than leases allow"
    return f"Master {pid} away {absence_s:.1f} s, {spanning} long jobs running across it"


def kill_workers(
    folder: Path, seed: int, say: Say, *, workers: int = 0, launchers: int = 0, both: int = 0, slots: int = 6,
    submitters: int = 2,
) -> Outcome:  # fmt: skip
    """Kill one of two workers, its launcher, or both at once, in random order; hostile jobs run on them."""
    with Campaign(folder, f"worker-{seed}", say, workers=["w1", "w2"], slots=slots) as campaign:
        campaign.feeder(slots, (1.0, 9.0), 60, ALL_KINDS)
        campaign.submitters(submitters)
        kinds = ["worker"] * workers + ["launcher"] * launchers + ["both"] * both
        campaign.random.shuffle(kinds)
        for number, kind in enumerate(kinds, 1):
            campaign.pause(campaign.random.uniform(0.5, 3.0))
            say(f"kill {number} of {len(kinds)}: {_kill_one(campaign, kind)}")
        return campaign.finish()


def _on(campaign: Campaign, worker: str) -> dict[Key, Line]:
    living = campaign.ledger.living().items()
    return {key: line for key, line in living if line.worker == worker and key not in campaign.dead}


def _kill_one(campaign: Campaign, kind: str) -> str:
    victim = campaign.random.choice(["w1", "w2"])
    if not until(lambda: bool(_on(campaign, victim)), AGAIN_S):
        campaign.broken.append(f"{kind}: nothing ran on {victim} for {AGAIN_S:.0f} s")
    part = campaign.parts.workers[victim]
    launcher = campaign.parts.launcher_pid(victim)
    concerned = _on(campaign, victim)
    watches = watch(campaign.place.alive, concerned.values())
    campaign.watches += watches
    campaign.ledger.note(victim, "killed")
    begun_ms = boot_ms()
    limit_ms = begun_ms + int(GONE_S * 1000)
    if kind != "worker":
        os.kill(launcher, signal.SIGKILL)
    if kind != "launcher":
        part.kill()
        campaign.pause(RESTART_S)
        campaign.parts.start(part)
        campaign.measured(f"{kind}: worker connected again", (boot_ms() - begun_ms) / 1000)
    if kind == "both":
        # Nobody is left to end them but the next worker, which does so before it says hello.
        limit_ms = max(limit_ms, boot_ms())
    campaign.faults += 1
    until(lambda: all(each.gone_ms for each in watches), 10)
    left = [each for each in watches if not each.gone_ms]
    gone_s = max(((each.gone_ms or boot_ms()) - begun_ms for each in watches), default=0) / 1000
    if watches:
        campaign.measured(f"{kind}: all processes gone", gone_s)
    if begun_ms + gone_s * 1000 > limit_ms:
        late = [
            f"{each.attempt.run} fence {each.attempt.fence}" for each in watches if not 0 < each.gone_ms <= limit_ms
        ]
        what = "are there after 10 s" if left else f"were there for {gone_s:.1f} s"
        campaign.broken.append(f"{kind} of {victim} killed: processes of {', '.join(late)} {what}")
    again = _run_again(campaign, kind, concerned, begun_ms)
    return f"{kind} of {victim}, {len(concerned)} jobs concerned, gone in {gone_s:.2f} s, {again}"


def _run_again(campaign: Campaign, kind: str, concerned: dict[Key, Line], begun_ms: int) -> str:
    """Wait until each of the jobs started anew (or had ended, or may be DEAD); say how long it took."""
    ledger = campaign.ledger

    def settled(line: Line) -> bool:
        if ledger.starts[line.key][-1].fence > line.fence or line.key in ledger.ended:
            return True
        # An attempt that was lost before its first line counts too, so only the Master knows who is DEAD.
        return boot_ms() > begun_ms + ASK_AFTER_MS and campaign.is_dead(line.key)

    if not until(lambda: ledger.look() is ledger and all(map(settled, concerned.values())), AGAIN_S):
        late = [f"{line.run}/{line.job} fence {line.fence}" for line in concerned.values() if not settled(line)]
        campaign.broken.append(f"{kind} killed: {', '.join(late)} did not run again within {AGAIN_S:.0f} s")
    waits = []
    for line in concerned.values():
        # The quick ones have no priority: how long they take says how long the queue is.
        later = [start.ms for start in ledger.starts[line.key] if start.fence > line.fence and line.job == LONG]
        waits += [(each - begun_ms) / 1000 for each in later[:1]]
    for wait_s in waits:
        campaign.measured(f"{kind}: runs again", wait_s)
    return f"run again in {max(waits):.2f} s at most" if waits else "none of priority had to run again"


def cut_short(folder: Path, seed: int, say: Say, *, cuts: int, cut_s: float, slots: int = 12) -> Outcome:
    """Cut the worker from its Master for less than a lease, again and again; every job runs once."""
    with Campaign(folder, f"cut-{seed}", say, workers=["w1"], slots=slots) as campaign:
        proxy = campaign.behind_proxy("w1")
        feeder = campaign.feeder(slots - 2, (cut_s, 4 * cut_s), 60, ("long", "session"))
        campaign.submitters(2)
        for cut in range(1, cuts + 1):
            campaign.pause(campaign.random.uniform(0.5, 3.0))
            until(lambda: feeder.outlasting(cut_s) >= slots // 3, BUSY_S)
            say(f"cut {cut} of {cuts}: {_cut(campaign, proxy, cut_s)}")
        return campaign.finish()


def _cut(campaign: Campaign, proxy: Proxy, cut_s: float) -> str:
    campaign.ledger.note("w1", "cut")
    how = _break(campaign, proxy)
    campaign.faults += 1
    campaign.pause(cut_s)
    proxy.pass_on()
    campaign.ledger.note("w1", "healed")
    return f"w1 for {cut_s:.1f} s, {how}"


def _break(campaign: Campaign, proxy: Proxy) -> str:
    """Break the link in one of the ways networks do; say which."""
    how = campaign.random.choice(["refused", "swallowed", "nothing goes up", "nothing comes down"])
    if how == "refused":
        proxy.refuse()
    else:
        proxy.swallow(up=how != "nothing comes down", down=how != "nothing goes up")
    return how


def mixed(folder: Path, seed: int, say: Say, *, turns: Sequence[str], slots: int = 6, submitters: int = 1) -> Outcome:
    """Inflict each of `turns`, in random order, on one cluster: master, worker, launcher, both, cut."""
    with Campaign(folder, f"mixed-{seed}", say, workers=["w1", "w2"], slots=slots) as campaign:
        proxy = campaign.behind_proxy("w1")
        feeder = campaign.feeder(slots, (1.0, 9.0), 60, ALL_KINDS)
        campaign.submitters(submitters)
        order = list(turns)
        campaign.random.shuffle(order)
        for number, turn in enumerate(order, 1):
            campaign.pause(campaign.random.uniform(0.1, 1.0))
            if turn == "master":
                told = _master_away(campaign, feeder, 1, (0.1, 2.0))
            elif turn == "cut":
                told = _cut(campaign, proxy, campaign.random.uniform(0.5, 2.0))
            else:
                told = _kill_one(campaign, turn)
            say(f"{number} of {len(order)}: {told}")
        return campaign.finish()


def cut_long(folder: Path, seed: int, say: Say, *, cuts: int, cut_s: float, jobs: int = 10) -> Outcome:
    """Cut a worker off for longer than its jobs' lease: exactly those run again, elsewhere, after they are dead."""
    with Campaign(folder, f"cutlong-{seed}", say, workers=["w1", "w2"], slots=jobs) as campaign:
        proxy = campaign.behind_proxy("w1")
        for cut in range(1, cuts + 1):
            told: list[str] = []
            _beyond_lease(campaign, cut, cut_s, jobs, lambda: told.append(_break(campaign, proxy)), proxy.pass_on)  # noqa: B023 - called there
            say(f"cut {cut} of {cuts}: w1 for {cut_s:g} s, {told[0]}")
        return campaign.finish()


def stop_worker(folder: Path, seed: int, say: Say, *, stops: int, stop_s: float = 50.0, jobs: int = 10) -> Outcome:
    """SIGSTOP a worker for longer than its jobs' lease: they run again elsewhere, and it commits nothing afterwards."""
    with Campaign(folder, f"stop-{seed}", say, workers=["w1", "w2"], slots=jobs) as campaign:
        part = campaign.parts.workers["w1"]
        for stop in range(1, stops + 1):
            _beyond_lease(
                campaign, stop, stop_s, jobs, lambda: part.signal(signal.SIGSTOP), lambda: part.signal(signal.SIGCONT)
            )
            say(f"stop {stop} of {stops}: {stop_s:g} s")
        return campaign.finish()


def _beyond_lease(
    campaign: Campaign, turn: int, fault_s: float, jobs: int, inflict: Callable[[], None], end: Callable[[], None]
) -> None:
    """Run `jobs` jobs with a short lease on w1 and w2, take w1 away beyond it, and look that those on it run twice."""
    ledger, place = campaign.ledger, campaign.place
    keys = [(f"r{turn}-{index}", "long") for index in range(jobs)]
    lease_s = SHORT_LEASE_S
    runs = []
    for run, job in keys:
        kind = campaign.random.choice(ALL_KINDS)
        # Longer than until its worker has killed it, so that none of those concerned ends before.
        work_s = lease_s + campaign.random.uniform(0, 8)
        job_ = place.job(run, job, work_s, kind=kind, lease_s=lease_s, tick_s=0.2)
        runs.append(campaign.client.submit_dag(run, [job_]))
        campaign.acknowledged[run] = {job: []}
    if not until(lambda: ledger.living().keys() >= set(keys), BUSY_S):
        campaign.broken.append(f"turn {turn}: {jobs} jobs did not start within {BUSY_S:.0f} s")
    concerned = _on(campaign, "w1")
    watches = watch(place.alive, concerned.values())
    campaign.watches += watches
    ledger.note("w1", "silenced")
    begun_ms = boot_ms()
    inflict()
    campaign.faults += 1
    campaign.pause(fault_s)
    end()
    ledger.note("w1", "back")
    _run_again(campaign, "silenced", concerned, begun_ms)
    for each in watches:
        if each.gone_ms:
            campaign.measured("silenced: all processes of an attempt gone", (each.gone_ms - begun_ms) / 1000)
    if not until(lambda: all(key in ledger.look().ended for key in keys), BUSY_S):
        campaign.broken.append(f"turn {turn}: not all of {jobs} jobs ended within {BUSY_S:.0f} s")
    campaign.broken += _not_twice(campaign, runs, concerned)


def _not_twice(campaign: Campaign, runs: Sequence[Run], concerned: dict[Key, Line]) -> list[str]:
    """Return a sentence for each job that did not start as often as it should, or whose end is not the last one's."""
    broken = []
    for run in runs:
        (job,) = run.wait(AGAIN_S).jobs
        starts = campaign.ledger.look().starts[run.name, job["id"]]
        expected = 2 if (run.name, job["id"]) in concerned else 1
        if len(starts) != expected:
            broken.append(f"{run.name}: started {len(starts)} times, not {expected}")
        if int(job["fence"]) != starts[-1].fence:
            broken.append(f"{run.name}: ended by fence {job['fence']}, and {starts[-1].fence} started last")
    return broken
