"""Claimed jobs for RQ's own code: those that fail, that others wait for, or that need its ordinary path."""

from contextlib import suppress
from typing import Any, NamedTuple

import redis
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job
from rq.utils import now

from .. import logs
from ..queue.repair import forget_killed_executions
from ..record.account import Report
from .claims import Claimed, Claims
from .strict import CarefulWorker
from .trusted import why_unreadable

# Nothing else can be done with a job for RQ's own code then, and whoever takes it next would end of it.
_FULL = "Redis is full: replay it when it has memory left"


class Ordinary(NamedTuple):
    """A claimed job for RQ's ordinary path."""

    claimed: Claimed
    job: Job
    execution: Execution


class HandingWorker(CarefulWorker):
    """RQ worker that hands single claimed jobs to RQ's code. What RQ needs of Redis then, it waits for."""

    _claims: Claims

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """Say that this worker lives, once Redis is there, and unless it is too full for that."""
        with suppress(redis.OutOfMemoryError):
            self._claims.patiently(lambda: super(HandingWorker, self).heartbeat(*args, **kwargs))

    def set_state(self, *args: Any, **kwargs: Any) -> None:
        """Say what this worker does, once Redis is there, and unless it is too full for that."""
        with suppress(redis.OutOfMemoryError):
            self._claims.patiently(lambda: super(HandingWorker, self).set_state(*args, **kwargs))

    def _job(self, claimed: Claimed) -> tuple[Job, Execution] | None:
        """The job for RQ's code; None if that cannot read it, or if it is no longer this worker's."""
        if not self._claims.holds(claimed):
            return None
        try:
            job = self.job_class.fetch(claimed.job_id, connection=self.connection, serializer=self.serializer)
        except NoSuchJobError:
            self._claims.release([claimed.member])  # deleted meanwhile: nothing of it comes back
            return None
        except Exception as error:
            self._quarantine(claimed, why_unreadable(error))
            return None
        forget_killed_executions(job)
        job.started_at = job.started_at or now()
        execution = Execution(claimed.execution_id, claimed.job_id, self.connection, self.name)
        execution.created_at = job.started_at
        return job, execution

    def _fail(self, claimed: Claimed, error: Exception) -> None:
        """Fail one job, once: its events would be refused again, whatever retries its producer asked for."""
        if found := self._job(claimed):
            job, execution = found
            job.retries_left = 0
            try:
                self._finalize_failure(job, self.queues[0], execution, (type(error), error, None))
            except redis.OutOfMemoryError:
                self._quarantine(claimed, _FULL)

    def _succeed(self, claimed: Claimed, report: Report) -> None:
        """Finish one job that others wait for."""
        if found := self._job(claimed):
            job, execution = found
            try:
                self._finalize_success(job, self.queues[0], execution, report.summary)
            except redis.OutOfMemoryError:
                self._quarantine(claimed, _FULL)

    def _prepare(self, claimed: Claimed) -> Ordinary | None:
        """Make a job ready for RQ's ordinary path; None if that cannot be."""
        if not (found := self._job(claimed)):
            return None
        job, execution = found
        ttl = self.get_heartbeat_ttl(job)
        try:
            with self.connection.pipeline() as pipeline:  # RQ's notes, which claiming left out
                execution.save(ttl, pipeline)
                job.execution_registry.add(execution, ttl, pipeline)
                pipeline.execute()
        except redis.OutOfMemoryError:
            self._quarantine(claimed, _FULL)
            return None
        return Ordinary(claimed, job, execution)

    def _quarantine(self, claimed: Claimed, problem: str) -> None:
        self._claims.quarantine(claimed)
        logs.error("job_quarantined", job=claimed.job_id, problem=problem)
