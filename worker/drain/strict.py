"""Where the worker is stricter than RQ's: what it refuses to start with, what it limits, and how it ends."""

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
from redis import RedisError
from rq.queue import Queue
from rq.serializers import DefaultSerializer, JSONSerializer, resolve_serializer

from .. import logs
from ..queue.plain import PlainJsonSerializer, PlainSerializer
from ..servers import postgres
from ..servers.findings import database_findings, redis_findings, settings_findings
from ..servers.redis import explain
from ..servers.settings import ConfigError, settings

#: A worker may hold this much in memory. Usual is a tenth.
MAX_MEMORY_BYTES = 1 << 30
#: With less it could not even start its threads.
LEAST_MEMORY_BYTES = 128 << 20
# Of each thread, as usual: what `ulimit -s` says otherwise would count as memory held.
_STACK_BYTES = 8 << 20

# RQ's and ours: what chooses one of them chooses nothing.
_CLASSES = {
    *("rq.job.Job", "rq.Job", "rq.queue.Queue", "rq.Queue"),
    *(
        f"{package}.drain.trusted.{name}"
        for package in ("worker", "notiflog")
        for name in ("TrustedJob", "TrustedQueue")
    ),
}


def one_queue(queues: Any) -> list[str]:
    """The names of a worker's queues, which are one, or none for a worker that only shows another."""
    listed: Sequence[Any] = queues if isinstance(queues, list | tuple) else [queues]
    names = [str(getattr(queue, "name", queue)) for queue in listed]
    if len(names) > 1:
        raise _refused(
            f"DrainWorker listens on one queue, not on {len(names)} ({', '.join(names)}): with more than "
            "one, RQ loses a job when a worker dies right after taking it. Start a worker for each queue."
        )
    return names


def plain_serializer(serializer: Any) -> type[PlainSerializer]:
    """Ours in the place of RQ's: it writes the same, and reads plain data only."""
    resolved = resolve_serializer(serializer)
    if resolved is JSONSerializer:
        return PlainJsonSerializer
    if resolved is DefaultSerializer:
        return PlainSerializer
    raise _refused("DrainWorker reads what RQ's pickle and json serializers write, and no other's.")


def refuse_other_classes(options: Mapping[str, Any]) -> None:
    """Refuse classes of jobs and queues that would be passed over: ours trust nothing in Redis."""
    for name in ("job_class", "queue_class"):
        chosen = options.get(name)
        if not isinstance(chosen, str):
            chosen = f"{chosen.__module__}.{chosen.__qualname__}" if chosen else ""
        if chosen and chosen not in _CLASSES:
            option = name.replace("_", "-")
            raise _refused(
                f"DrainWorker has a {name} of its own: leave out --{option} and RQ_{name.upper()}."
            )


def connection_of(queues: Any, connection: Any) -> Any:
    """A worker's connection: the one it is given, or its queue's. Raises TypeError if there is none."""
    listed = queues if isinstance(queues, list | tuple) else [queues]
    found = connection or next((queue.connection for queue in listed if isinstance(queue, Queue)), None)
    if found is None:
        raise TypeError("a worker of queues that are names needs connection=Redis(...)")
    return found


def _refused(problem: str) -> SystemExit:
    """A worker that can never start so. RQ's pool, which would start it for ever, ends with it."""
    if "(WorkerPool " in multiprocessing.current_process().name:
        os.kill(os.getppid(), signal.SIGTERM)
    return SystemExit(problem)


def refuse_to_lose(connection: Any) -> None:
    """End the worker where jobs could be lost or not recorded, saying what to do about it."""
    if problems := [*redis_problems(connection), *database_problems()]:
        raise SystemExit("\n".join(problems))


def limit_memory() -> None:
    """Have this process refuse what asks for more memory: nine bytes of pickle can ask for 64 GB."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    limit = min([MAX_MEMORY_BYTES, *(known for known in limits if known != resource.RLIM_INFINITY)])
    if limit < LEAST_MEMORY_BYTES:
        raise SystemExit(
            f"This process may hold {limit >> 20} MB of data (`ulimit -d`, RLIMIT_DATA), a worker needs "
            f"{LEAST_MEMORY_BYTES >> 20}: raise the limit."
        )
    threading.stack_size(_STACK_BYTES)
    with suppress(ValueError, OSError):  # macOS may refuse, and does not enforce it anyway
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limits[1]))


def require_threads(n: int) -> None:
    """End the worker where it could not start its threads: it would end in the middle of something."""
    enough = threading.Event()
    started = []
    try:
        for _ in range(n):
            started.append(threading.Thread(target=enough.wait))
            started[-1].start()
    except (RuntimeError, MemoryError):
        raise SystemExit(
            f"No more than {len(started) - 1} threads can be started here, a worker needs {n}: raise the "
            "limits of memory and processes (`ulimit -v`, `ulimit -u`, or the container's)."
        ) from None
    finally:
        enough.set()


@contextmanager
def reasons_logged() -> Iterator[None]:
    """Have a worker that ends for a reason (SystemExit with a text) log it, and end with status 1."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.code, str):
            logs.error("worker_stopped", problem=stop.code)
            raise SystemExit(1) from None
        raise


def redis_problems(connection: Any) -> Iterator[str]:
    """Sentences on why jobs could be lost in this Redis. Warns where less than that is wrong."""
    try:
        findings = list(redis_findings(connection))
    except RedisError as error:
        yield explain(error)
        return
    for finding in findings:
        if finding.level == "problem":
            yield f"{finding.text}. {finding.remedy[:1].upper()}{finding.remedy[1:]}."
        elif finding.level == "warning" and finding.name == "redis.persistence":
            logs.warning("redis_not_durable", remedy=finding.remedy)


def database_problems() -> Iterator[str]:
    """Sentences on why outcomes could not be recorded. A database that is away now is no such reason."""
    try:
        here = settings()
        for finding in settings_findings(here):
            logs.warning("setting_passed_over", problem=finding.text, remedy=finding.remedy)
        with closing(postgres.connect(here.database_url)) as connection:
            for finding in database_findings(connection, here):
                if finding.level == "problem":
                    yield str(finding)
                elif finding.level == "warning" and finding.name == "postgres.tls":
                    logs.warning("database_not_verified", problem=finding.text, remedy=finding.remedy)
                elif finding.level == "warning" and finding.name == "postgres.guard":
                    logs.warning("guard_weak", problem=finding.text, remedy=finding.remedy)
    except ConfigError as error:
        yield str(error)
    except psycopg.Error as error:
        if not postgres.is_transient(error):
            yield postgres.explain(error)
        else:
            logs.warning("database_unavailable", problem=postgres.explain(error))
