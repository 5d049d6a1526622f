"""RQ's own path for claimed jobs: those that fail, that others wait for, or that need all that RQ does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.utils import now

from .. import logs
from ..queue.repair import forget_killed_executions
from ..record.account import Report
from .claimed import Claimed
from .claims import Claims
from .trusted import why_unreadable

# Nothing else can be done with a job for RQ's own code then, and whoever takes it next would end of it.
_FULL = "Redis is full: replay it when it has memory left"


class Ordinary(NamedTuple):
    """A claimed job, ready for RQ's ordinary path."""

    claimed: Claimed
    job: Job
    execution: Execution


class OrdinaryPath:
    """Hands single claimed jobs of one worker to RQ's code; what that cannot read is set aside."""

    def __init__(self, worker: Any, claims: Claims) -> None:
        self._worker = worker
        self._claims = claims

    def prepare(self, claimed: Claimed) -> Ordinary | None:
        """Make a job ready for `run`; None if that cannot be, and it is not this worker's any more."""
        if not (ordinary := self._fetch(claimed)):
            return None
        _, job, execution = ordinary
        ttl = self._worker.get_heartbeat_ttl(job)

        def note() -> None:
            with self._worker.connection.pipeline() as pipeline:  # RQ's notes, which claiming left out
                execution.save(ttl, pipeline)
                job.execution_registry.add(execution, ttl, pipeline)
                pipeline.execute()

        return ordinary if self._attempt(claimed, note) else None

    def run(self, ordinary: Ordinary) -> None:
        """Run a job and finish it as RQ does, keeping the worker's lease meanwhile."""
        with self._claims.kept([ordinary.claimed.member]):
            self._worker.perform_job(ordinary.job, self._worker.queues[0], ordinary.execution)

    def fail(self, claimed: Claimed, error: Exception) -> None:
        """Fail one job, once: its events would be refused again, whatever retries its producer asked for."""

        def fail() -> None:
            if ordinary := self._fetch(claimed):
                _, job, execution = ordinary
                job.retries_left = 0
                reason = (type(error), error, None)
                self._worker._finalize_failure(job, self._worker.queues[0], execution, reason)

        self._attempt(claimed, fail)

    def succeed(self, claimed: Claimed, report: Report) -> None:
        """Finish one recorded job that others wait for."""

        def succeed() -> None:
            if ordinary := self._fetch(claimed):
                _, job, execution = ordinary
                self._worker._finalize_success(job, self._worker.queues[0], execution, report.summary)

        self._attempt(claimed, succeed)

    def set_aside(self, claimed: Claimed, problem: str) -> None:
        """Move one job to the quarantine, and say why."""
        self._claims.quarantine(claimed)
        logs.error("job_quarantined", job=claimed.job_id, problem=problem)

    def _attempt(self, claimed: Claimed, step: Callable[[], None]) -> bool:
        """Do a step of RQ's about one job, once Redis is there. False: it cannot be, the job is set aside.

        A step may be tried again: what is done already is no longer this worker's, and passed over.
        """
        try:
            self._claims.patiently(step)
        except redis.OutOfMemoryError:
            self.set_aside(claimed, _FULL)
        except redis.ConnectionError:
            raise
        except Exception as error:  # somebody put another thing beside the job than RQ expects there
            self.set_aside(claimed, f"RQ cannot bring it to an end: {type(error).__name__}")
        else:
            return True
        return False

    def _fetch(self, claimed: Claimed) -> Ordinary | None:
        """The job as RQ has it; None if RQ cannot read it, or if it is no longer this worker's."""
        if not self._claims.holds(claimed):
            return None
        worker = self._worker
        try:
            job = worker.job_class.fetch(claimed.job_id, worker.connection, worker.serializer)
        except NoSuchJobError:
            self._claims.release([claimed.member])  # deleted meanwhile: nothing of it comes back
            return None
        except Exception as error:
            self.set_aside(claimed, why_unreadable(error))
            return None
        forget_killed_executions(job)
        job.started_at = job.started_at or now()
        execution = Execution(claimed.execution_id, claimed.job_id, worker.connection, worker.name)
        execution.created_at = job.started_at
        return Ordinary(claimed, job, execution)
