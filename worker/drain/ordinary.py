"""RQ's own path for claimed jobs: those that fail, that others wait for, or that need all that RQ does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.utils import now

from .. import logs
from ..queue.plain import UntrustedJob
from ..queue.repair import forget_killed_executions
from ..record.account import Report
from .claimed import Claimed
from .claims import Claims
from .turn import where

# Nothing else can be done with a job for RQ's own code then.
_FULL = "Redis is full: replay it when it has memory left"
# RQ's words, as far as they go.
_STOPPED = "Job stopped by user, while it was being recorded"


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
        with (
            self._or_set_aside(claimed),
            self._worker.connection.pipeline() as pipeline,  # RQ's notes, which claiming left out
        ):
            execution.save(ttl, pipeline)
            job.execution_registry.add(execution, ttl, pipeline)
            pipeline.execute()
            return ordinary
        return None

    def run(self, ordinary: Ordinary) -> None:
        """Run a job and finish it as RQ does, keeping the worker's lease meanwhile."""
        with self._claims.kept([ordinary.claimed.member]), self._or_set_aside(ordinary.claimed):
            self._worker.perform_job(ordinary.job, self._worker.queues[0], ordinary.execution)

    def fail(self, claimed: Claimed, error: Exception) -> None:
        """Fail one job, once: its events would be refused again, whatever retries its producer asked for."""

        def fail(job: Job, execution: Execution) -> None:
            job.retries_left = 0
            reason = (type(error), error, None)
            self._worker._finalize_failure(job, self._worker.queues[0], execution, reason)

        self._finish(claimed, fail)

    def succeed(self, claimed: Claimed, report: Report) -> None:
        """Finish one recorded job that others wait for."""

        def succeed(job: Job, execution: Execution) -> None:
            self._worker._finalize_success(job, self._worker.queues[0], execution, report.summary)

        self._finish(claimed, succeed)

    def stop(self, claimed: Claimed) -> None:
        """Fail one job that somebody stopped, as RQ does: no retry."""

        def stop(job: Job, execution: Execution) -> None:
            worker = self._worker
            worker._stopped_job_id = job.id
            worker.handle_job_failure(job, worker.queues[0], exc_string=_STOPPED, execution=execution)
            logs.error("job_failed", job=job.id, exc=None, problem=_STOPPED, frames=[])

        self._finish(claimed, stop)

    def set_aside(self, claimed: Claimed, problem: str) -> None:
        """Move one job to the quarantine, and say why."""
        self._claims.quarantine(claimed)
        logs.error("job_quarantined", job=claimed.job_id, problem=problem)

    def _finish(self, claimed: Claimed, finish: Callable[[Job, Execution], None]) -> None:
        if ordinary := self._fetch(claimed):
            with self._or_set_aside(claimed):
                finish(ordinary.job, ordinary.execution)

    def _fetch(self, claimed: Claimed) -> Ordinary | None:
        """The job as RQ has it; None if RQ cannot read it, or if it is no longer this worker's."""
        if not self._claims.holds(claimed):
            return None
        worker = self._worker
        with self._or_set_aside(claimed):
            try:
                job = worker.job_class.fetch(claimed.job_id, worker.connection, worker.serializer)
            except NoSuchJobError:
                self._claims.release([claimed.member])  # deleted meanwhile: nothing of it comes back
                return None
            worker.queues[0].set_aside_unreadable_dependents(job.id)
            forget_killed_executions(job)
            job.started_at = job.started_at or now()
            execution = Execution(claimed.execution_id, claimed.job_id, worker.connection, worker.name)
            execution.created_at = job.started_at
            return Ordinary(claimed, job, execution)
        return None

    @contextmanager
    def _or_set_aside(self, claimed: Claimed) -> Iterator[None]:
        """Set one job aside where RQ's code fails: whoever takes it next would end of it."""
        try:
            yield
        except redis.OutOfMemoryError:
            self.set_aside(claimed, _FULL)
        except (redis.ConnectionError, redis.TimeoutError):
            raise
        except UntrustedJob as error:
            self.set_aside(claimed, str(error))
        except Exception as error:  # of what somebody put into the job's hash, or beside it
            self.set_aside(claimed, f"RQ's code fails of it: {where(error)}")
