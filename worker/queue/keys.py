"""Names in Redis that the workers, the scheduler's side and the commands share. Loads nothing."""

import os
import re

#: The job, by name: the scheduler need not import what the worker needs. The wire contract has this name,
#: whatever the package is called here.
JOB = "worker.jobs.record_outcomes"
#: The periodic check of silent tokens.
SWEEP = "worker.jobs.sweep_tokens"
#: The periodic tidying of reservations.
TIDY = "worker.jobs.tidy_reservations"
#: The periodic deletion of old outcomes.
RETAIN = "worker.jobs.retain_outcomes"
#: The functions a job may name, with a checkout's name of the package or the installed one's; in `jobs`.
JOB_FUNCTIONS = {
    f"{package}.jobs.{function}": function
    for package in ("worker", "notiflog")
    for function in ("record_outcomes", "sweep_tokens", "tidy_reservations", "retain_outcomes")
}
#: The queue of `rq worker notiflog`.
QUEUE = "notiflog"
#: RQ's prefix of every key, read as RQ reads it.
PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq")
#: How often RQ runs a job again whose worker died; without any, RQ fails it. At once: an interval would need
#: RQ's scheduler. The job itself waits for a database that is away, and that does not count here.
RETRIES = 3
#: A job is taken over this often; after that it is suspected of killing its workers, and fails.
MOST_RECOVERIES = 3
#: Bytes of data that no job of ours reaches; a hash with more is not worth the memory.
LARGEST_DATA = 16 << 20

#: The ids of jobs that RQ 3 allows; earlier ones took any text.
ALLOWED_ID = re.compile(rb"[A-Za-z0-9_-]+")

_OTHER_REGISTRIES = ("finished", "deferred", "scheduled", "ready", "canceled")

#: The list of keys that were renamed because they held another type of value, until a worker tells of them.
RENAMED = f"{PREFIX}:notiflog:renamed"


def failed_key(queue: str) -> str:
    """The sorted set of the ids of failed jobs: RQ's registry."""
    return f"{PREFIX}:failed:{queue}"


def quarantine_key(queue: str) -> str:
    """The list of the ids of jobs that were set aside."""
    return f"{PREFIX}:notiflog:quarantine:{queue}"


def places(queue: str) -> list[str]:
    """The keys of all places in which a job of a queue may stand, in the order of `places.lua`."""
    own = [f"{PREFIX}:queue:{queue}", failed_key(queue), quarantine_key(queue)]
    others = (
        f"queue:{queue}:intermediate",
        f"wip:{queue}",
        *(f"{each}:{queue}" for each in _OTHER_REGISTRIES),
    )
    return own + [f"{PREFIX}:{name}" for name in others]


def leases_key(queue: str) -> str:
    """The sorted set of the draining workers by when their leases end, in seconds of the server's clock."""
    return f"{PREFIX}:notiflog:leases:{queue}"


def shared_kinds(queue: str) -> dict[str, str]:
    """The type of value that Redis must hold under the keys that all jobs and workers of a queue share."""
    lists = (f"queue:{queue}", f"queue:{queue}:intermediate", f"notiflog:quarantine:{queue}")
    registries = ("wip", "failed", *_OTHER_REGISTRIES)
    sorted_sets = (*(f"{registry}:{queue}" for registry in registries), f"notiflog:leases:{queue}")
    sets = ("queues", "workers", f"workers:{queue}", "groups")
    kinds = dict.fromkeys(lists, "list") | dict.fromkeys(sorted_sets, "zset") | dict.fromkeys(sets, "set")
    return {f"{PREFIX}:{key}": kind for key, kind in kinds.items()}


def kinds_beside(job_id: str) -> dict[str, str]:
    """The type of value that Redis must hold under the keys that RQ keeps beside a job's hash."""
    return {
        f"{PREFIX}:results:{job_id}": "stream",
        f"{PREFIX}:job:{job_id}:dependents": "set",
        f"{PREFIX}:job:{job_id}:dependencies": "set",
        f"{PREFIX}:executions:{job_id}": "zset",
    }


def raw_id(job_id: str) -> bytes:
    """The id of a stopped job as it stands in Redis. Raises ValueError if `job_id` cannot be one."""
    return job_id.encode("ascii").decode("unicode_escape").encode("latin-1")
