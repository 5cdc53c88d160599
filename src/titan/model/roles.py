"""The roles, as words. What each may do is one table in `titan.master.roles`."""

import enum


class Role(enum.StrEnum):
    """What a token is for."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    APPROVER = "approver"
    OPERATOR = "operator"
    ADMIN = "admin"
    WORKER = "worker"
    JOB = "job"


# A job's token is an HMAC that dies with its attempt: there is no row for it.
STORED_ROLES = frozenset(Role) - {Role.JOB}
