"""Who may do what: one table, keyed by the name of the route. What is not in it is refused.

docs/reference/roles.md and the OpenAPI document are drawn from it.
A job's token reads everything, uses the store, publishes artifacts, submits below its own run, and extends or
cancels its own run and those below; that the run really lies below is checked where the run is known
(`titan.master.finding`).
"""

from titan.model.roles import Role

EVERYBODY = frozenset(Role)
READERS = EVERYBODY - {Role.WORKER}
WRITERS = frozenset({Role.SUBMITTER, Role.OPERATOR, Role.ADMIN, Role.JOB})
PEOPLE = WRITERS - {Role.JOB}
OPERATORS = frozenset({Role.OPERATOR, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})
WORKERS = frozenset({Role.WORKER, Role.ADMIN})

PUBLIC_PATH = "/api/v1/healthz"

ALLOWED: dict[str, frozenset[Role]] = {
    "health": EVERYBODY,
    "openapi": READERS,
    "runs.submit": WRITERS,
    "runs.list": READERS,
    "runs.get": READERS,
    "runs.cancel": WRITERS,
    "runs.retry": PEOPLE,
    "runs.extend": WRITERS,
    "runs.wait": READERS,
    "runs.jobs": READERS,
    "runs.short_ids": READERS,
    "jobs.lookup": READERS,
    "jobs.get": READERS,
    "jobs.explain": READERS,
    "jobs.log": READERS,
    "jobs.attempts": READERS,
    "jobs.wait": READERS,
    "jobs.cancel": WRITERS,
    "blobs.put": WRITERS,
    "blobs.get": EVERYBODY,
    "registry.put": PEOPLE,
    "registry.get": READERS,
    "artifacts.put": WRITERS,
    "artifacts.list": READERS,
    "artifacts.versions": READERS,
    "artifacts.get": READERS,
    "artifacts.delete": PEOPLE,
    "store.get": READERS,
    "store.put": WRITERS,
    "store.delete": WRITERS,
    "store.incr": WRITERS,
    "store.cas": WRITERS,
    "store.sadd": WRITERS,
    "store.srem": WRITERS,
    "store.smembers": READERS,
    "store.list": READERS,
    "store.many": WRITERS,
    "store.watch": READERS,
    "workers.list": READERS,
    "workers.drain": OPERATORS,
    "stats.get": READERS,
    "overview.get": READERS,
    "events.follow": READERS,
    "worker.link": WORKERS,
    "workers.invite": ADMINS,
    "workers.enrol": WORKERS,
    "workers.remove": OPERATORS,
    "tokens.create": ADMINS,
    "tokens.list": ADMINS,
    "tokens.revoke": ADMINS,
    "audit.list": ADMINS,
    "audit.verify": ADMINS,
}
# A token of role worker that names no worker is an enrolment: it becomes a credential, and is good for nothing else.
ENROLMENTS = frozenset({"workers.enrol"})


# What a role is for, in the words of the page.
PURPOSE: dict[Role, str] = {
    Role.VIEWER: "reads everything but tokens and the audit",
    Role.SUBMITTER: (
        "also submits, extends, cancels and retries runs, uploads files, publishes and deletes artifacts, and writes "
        "the store"
    ),
    Role.APPROVER: "reads like a viewer; approving comes with gates",
    Role.OPERATOR: "does what a submitter does, and has workers drain or removes them",
    Role.ADMIN: "does everything; the home's own token has this role",
    Role.WORKER: "links the one worker it names, and fetches contents",
    Role.JOB: (
        "reads everything, uses the store, publishes artifacts, submits below its own run, extends and cancels that "
        "and those below"
    ),
}


def allows(role: Role, route: str) -> bool:
    """Say whether `role` may use the route named `route`; an unknown route is nobody's."""
    return role in ALLOWED.get(route, frozenset())
