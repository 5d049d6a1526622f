"""RQ's worker, made careful: it refuses to start where jobs could be lost, trusts nothing in Redis, shows no
argument of a job, and ends with a non-zero status where somebody must act or start it anew.
"""

import resource
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import psycopg
import redis
from rq.exceptions import StopRequested
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.serializers import DefaultSerializer, JSONSerializer, resolve_serializer
from rq.utils import now
from rq.worker import SimpleWorker, WorkerStatus

from .. import logs
from ..logs import sentry
from ..queue.plain import PlainJsonSerializer, PlainSerializer
from ..servers import postgres
from ..servers.findings import database_findings, redis_findings
from ..servers.settings import ConfigError, settings
from .trusted import TrustedJob, TrustedQueue

#: A worker may hold this much in memory. Usual is a tenth.
MAX_MEMORY_BYTES = 1 << 30


class CarefulWorker(SimpleWorker):  # type: ignore[misc]
    """RQ worker for one queue of `worker.jobs`."""

    job_class = TrustedJob
    queue_class = TrustedQueue

    def __init__(self, queues: Any, *args: Any, **kwargs: Any) -> None:
        names = [getattr(queue, "name", queue) for queue in ([queues] if isinstance(queues, str) else queues)]
        kind = type(self).__name__
        if len(names) > 1:
            raise SystemExit(
                f"{kind} listens on one queue, not on {len(names)} ({', '.join(names)}): with more than one, "
                "RQ loses a job when a worker dies right after taking it. Start a worker for each queue."
            )
        json = resolve_serializer(kwargs.get("serializer")) is JSONSerializer
        if not json and resolve_serializer(kwargs.get("serializer")) is not DefaultSerializer:
            raise SystemExit(f"{kind} reads what RQ's pickle and json serializers write, and no other's.")
        kwargs |= {
            "job_class": TrustedJob,
            "queue_class": TrustedQueue,
            "serializer": PlainJsonSerializer if json else PlainSerializer,
            "log_job_description": False,  # it may show arguments, device tokens among them
        }
        super().__init__(names, *args, **kwargs)
        self._ended_well = False
        self._fault: postgres.DatabaseFault | None = None

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work as RQ's worker does, but end with a non-zero status where RQ's loop only logs an error."""
        try:
            worked = bool(super().work(*args, **kwargs))
            if not self._ended_well and self._shutdown_requested_date is None:
                raise SystemExit("Stopped by the error logged above; unfinished jobs are back in the queue.")
        except SystemExit as stop:
            if isinstance(stop.code, str):
                logs.error("worker_stopped", problem=stop.code)
                raise SystemExit(1) from None
            raise
        return worked

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to start where jobs could be lost or not recorded, saying what to do about it."""
        logs.setup()
        sentry.setup(wait=False)
        problems = [*redis_problems(self.connection), *database_problems()]
        if problems:
            raise SystemExit("\n".join(problems))
        limit_memory()
        try:
            super().bootstrap(*args, **kwargs)
        except ValueError:
            raise SystemExit(
                f"A worker named {self.name} is at work, or died within the last minutes: give this one "
                "another name, or none."
            ) from None

    def check_for_suspension(self, burst: bool) -> None:
        """Wait as long as the workers are suspended; in burst mode, end."""
        try:
            super().check_for_suspension(burst)
        except StopRequested:
            self._ended_well = True
            raise

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log why a job failed; RQ's own line quotes the exception and carries the job's arguments."""
        logs.error("job_failed", job=job.id, **logs.describe(exc_info[1]))
        if isinstance(exc_info[1], postgres.DatabaseFault):
            self._fault = exc_info[1]
        call_exception_handlers(self._exc_handlers, job, *exc_info)

    def set_shutdown_requested_date(self) -> None:
        """Tell others of the request to stop, if Redis is there: it must not raise inside whatever runs."""
        with suppress(redis.RedisError):
            super().set_shutdown_requested_date()

    def run_maintenance_tasks(self) -> None:
        """Run RQ's maintenance, after taking care of what it would fail on."""
        self._state = WorkerStatus.BUSY  # otherwise a signal would raise, and be taken for an error
        self.queues[0].set_aside_unreadable()
        try:
            super().run_maintenance_tasks()
        except (redis.RedisError, OSError):
            raise
        except Exception:
            # Some unreadable job in a registry. Without this the lock would keep everybody from maintenance.
            self.log.exception("Worker %s: maintenance failed", self.name)
            self.queues[0].release_maintenance_lock()
            self.last_cleaned_at = now()


def limit_memory() -> None:
    """Have this process refuse what asks for more memory: nine bytes of pickle can ask for 64 GB."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    limit = min([MAX_MEMORY_BYTES, *(known for known in limits if known != resource.RLIM_INFINITY)])
    with suppress(ValueError, OSError):  # macOS may refuse, and does not enforce it anyway
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limits[1]))


def redis_problems(connection: Any) -> Iterator[str]:
    """Sentences on why jobs could be lost in this Redis. Warns where less than that is wrong."""
    for finding in redis_findings(connection):
        if finding.level == "problem":
            yield f"{finding.text}. {finding.remedy[:1].upper()}{finding.remedy[1:]}."
        elif finding.level == "warning" and finding.name == "redis.persistence":
            logs.warning("redis_not_durable", remedy=finding.remedy)


def database_problems() -> Iterator[str]:
    """Sentences on why outcomes could not be recorded. A database that is away now is no such reason."""
    try:
        here = settings()
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
