"""Stats, workers, health: the Master about itself."""

from litestar import get, post
from litestar.params import FromPath

from titan.core.events import DrainWorker
from titan.master.api.site import Http, engine_of, site_of, trail
from titan.model.views import Health, Stats, WorkerList, WorkerView, iso_time


@get("/healthz", name="health")
async def health() -> Health:
    """Say that a Master answers here; needs no token and tells nothing else."""
    return Health()


@get("/stats", name="stats.get")
async def stats(request: Http) -> Stats:
    """Count what lives: runs, jobs by state, workers, slots, ready jobs by requirement."""
    site = site_of(request.scope)
    counts, epoch = await site.engine.ask(lambda scheduler, _: (scheduler.stats(), scheduler.memory.epoch))
    return Stats(version=site.version, epoch=epoch, started_at=iso_time(site.started_ms), **counts)


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


HANDLERS = [health, stats, workers, drain]
