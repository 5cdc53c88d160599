"""Why a job is where it is: constants that `explain`, rows, the API and the docs share.

`WAIT_*` answer "why does it not run yet" and each has a remedy; `END_*` are written on jobs that are over
or go round again.
"""

from collections.abc import Mapping

WAIT_PARENTS = "PARENTS_UNFINISHED"
WAIT_DELAY = "DELAY"
WAIT_BACKOFF = "RETRY_BACKOFF"
WAIT_POSTPONED = "START_POSTPONED"
WAIT_ENTERING = "ENTERING_QUEUE"
WAIT_NO_WORKER = "NO_WORKER_CONNECTED"
WAIT_CAPABILITY = "NO_WORKER_WITH_CAPABILITY"
WAIT_DRAINING = "WORKERS_DRAINING"
WAIT_DEVICE = "ALL_DEVICES_BUSY"
WAIT_SLOTS = "ALL_SLOTS_BUSY"
WAIT_ROOM = "SLOTS_LENT"
WAIT_AFFINITY = "PINNED_WORKER_BUSY"
WAIT_PINNED_AWAY = "PINNED_WORKER_AWAY"
WAIT_START = "STARTING_ON_WORKER"
WAIT_AHEAD = "SENT_AHEAD"
WAIT_LEASE = "WORKER_SILENT"
CANCELLING = "CANCELLING"
RUNNING = "RUNNING"
WAITS_BELOW = "WAITS_FOR_RUN_BELOW"
ENDED = "ENDED"

END_EXIT_CODE = "EXIT_CODE"
END_SIGNAL = "SIGNAL"
END_TIMEOUT = "TIMEOUT"
END_OUT_OF_MEMORY = "OUT_OF_MEMORY"
END_START_FAILED = "START_FAILED"
END_LOST = "LOST_WITH_WORKER"
END_WORKER_DEATHS = "TOOK_WORKERS_DOWN"
END_WORKER_STOP = "WORKER_STOPPED"
END_PARENT_FAILED = "PARENT_FAILED"
END_PARENT_CANCELLED = "PARENT_CANCELLED"
END_CANCELLED = "CANCEL_REQUESTED"
AFFINITY_RELEASED = "AFFINITY_RELEASED"

REMEDIES: Mapping[str, str] = {
    WAIT_PARENTS: "it starts when its parents have completed; see titan explain for each parent named",
    WAIT_DELAY: "it starts when its delay is over",
    WAIT_BACKOFF: "it is tried again when the backoff is over",
    WAIT_POSTPONED: "its worker could not start it and it is tried again shortly; free that machine's resources",
    WAIT_ENTERING: "nothing to do: a large run is worked through in slices, and its turn comes next",
    WAIT_NO_WORKER: "start a worker: titan up, or titan worker --join URL",
    WAIT_CAPABILITY: "start a worker that offers it: titan worker --join URL --capability TAG",
    WAIT_DRAINING: "start another worker that offers it, or start the draining one anew",
    WAIT_DEVICE: "wait for a device, add a worker with devices, or raise the job's priority",
    WAIT_SLOTS: "wait for a slot, add a worker, or raise the job's priority",
    WAIT_ROOM: "wait: the rest is kept for what those jobs wait for; more workers take more",
    WAIT_AFFINITY: "wait for its worker, or for affinity_wait_s to pass; then any fitting worker takes it",
    WAIT_PINNED_AWAY: "bring that worker back, or wait for affinity_wait_s to pass; then any fitting worker takes it",
    WAIT_START: "the worker has it and reports the start next",
    WAIT_AHEAD: "nothing to do: it starts there, or comes back for the first slot that is free elsewhere",
    WAIT_LEASE: "bring that worker back; else the job goes elsewhere when its lease has run out",
    CANCELLING: "nothing to do: it is being cancelled; what runs gets TERM, 10 s, KILL",
    RUNNING: "nothing to do: it runs; titan logs -f shows its output",
    WAITS_BELOW: "nothing to do: it goes on when that has ended; see titan explain for the jobs of that run",
    ENDED: "it is over; titan logs shows its output",
}

ENDS: Mapping[str, str] = {
    END_EXIT_CODE: "it ended with an exit code other than 0",
    END_SIGNAL: "a signal ended it",
    END_TIMEOUT: "it ran for longer than its timeout_s",
    END_OUT_OF_MEMORY: "the kernel killed it for its memory",
    END_START_FAILED: "it could not be started",
    END_LOST: "its worker is gone, or had lost it",
    END_WORKER_DEATHS: "the third worker was lost with it",
    END_WORKER_STOP: "its worker was stopped in order",
    END_PARENT_FAILED: "a job it waits for, directly or not, failed",
    END_PARENT_CANCELLED: "a job it waits for, directly or not, was cancelled",
    END_CANCELLED: "somebody asked for its end",
}
_ITSELF = frozenset({END_EXIT_CODE, END_SIGNAL, END_TIMEOUT, END_OUT_OF_MEMORY, END_START_FAILED, END_WORKER_DEATHS})
AFTER_A_FIX = "titan logs shows its output; after a fix titan retry goes on from there, with the file as it is then"
AGAIN = "titan retry starts it again, and first what it waits for"


def after(reason: str) -> str:
    """Return what helps a job that is over: `reason` is one of ENDS, or empty."""
    if reason in _ITSELF:
        return AFTER_A_FIX
    return AGAIN if reason in ENDS else REMEDIES[ENDED]
