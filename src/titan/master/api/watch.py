"""Stats, workers, health: the Master about itself."""

from typing import Any

from litestar import get, post
from litestar.params import FromPath

from titan.core.events import DrainWorker
from titan.master.api.site import Http, Site, engine_of, site_of, trail
from titan.model.views import (
    Health,
    Overview,
    RunningJob,
    Stats,
    WaitingQueue,
    WorkerList,
    WorkerView,
    iso_time,
)


@get("/healthz", name="health")
async def health() -> Health:
    """Say that a Master answers here; needs no token and tells nothing else."""
    return Health()


@get("/stats", name="stats.get")
async def stats(request: Http) -> Stats:
    """Count what lives: runs, jobs by state, workers, slots, ready jobs by requirement."""
    site = site_of(request.scope)
    return _stats(site, *await site.engine.ask(lambda scheduler, _: (scheduler.stats(), scheduler.memory.epoch)))


@get("/overview", name="overview.get")
async def overview(request: Http) -> Overview:
    """Show what a person looks at first: counts, workers, what waits and why, what runs."""
    site = site_of(request.scope)
    found = await site.engine.ask(
        lambda scheduler, _: (
            (scheduler.stats(), scheduler.memory.epoch),
            scheduler.worker_list(),
            scheduler.overview(),
        )
    )
    counts, workers_known, first = found
    return Overview(
        now=iso_time(site.engine.clock().wall_ms),
        stats=_stats(site, *counts),
        workers=[_worker(worker) for worker in workers_known],
        waiting=[WaitingQueue(**_timed(queue, "ready")) for queue in first["waiting"]],
        running=[RunningJob(**_timed(job, "started")) for job in first["running"]],
    )


def _stats(site: Site, counts: dict[str, Any], epoch: int) -> Stats:
    came = {str(state): count for state, count in site.engine.live.came.items()}
    return Stats(version=site.version, epoch=epoch, started_at=iso_time(site.started_ms), came=came, **counts)


def _timed(fields: dict[str, Any], what: str) -> dict[str, Any]:
    """Return `fields` with the wall time of `what` as the API writes it."""
    rest = {name: value for name, value in fields.items() if name != f"{what}_ms"}
    return {**rest, f"{what}_at": iso_time(fields[f"{what}_ms"])}


@get("/workers", name="workers.list")
async def workers(request: Http) -> WorkerList:
    """List the workers the Master knows."""
    found = await engine_of(request).ask(lambda scheduler, _: scheduler.worker_list())
    return WorkerList([_worker(worker) for worker in found])


@post("/workers/{name:str}/drain", name="workers.drain", status_code=200)
async def drain(request: Http, name: FromPath[str]) -> WorkerView:
    """Have a worker finish what runs and take nothing more. It is as new once it is started again."""
    return _worker(await engine_of(request).apply(DrainWorker(name), (), trail(request, name)))


def _worker(fields: dict[str, object]) -> WorkerView:
    shown = {name: fields[name] for name in WorkerView.__struct_fields__ if name != "connected_at"}
    return WorkerView(**shown, connected_at=iso_time(fields["connected_at_ms"] or None))  # type: ignore[arg-type]


HANDLERS = [health, stats, overview, workers, drain]
