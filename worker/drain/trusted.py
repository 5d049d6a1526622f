"""RQ's Job and Queue for all that is rare, with the restraint of `queue.plain`."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import redis
from rq.job import Job, validate_job_id
from rq.queue import Queue

from .. import logs
from ..queue.fields import IGNORED, unreadable_field
from ..queue.keys import PREFIX, kinds_beside, quarantine_key, shared_kinds
from ..queue.plain import UntrustedJob, inflate, job_function, read_call
from ..queue.scripts import mend


class TrustedJob(Job):  # type: ignore[misc]
    """RQ's job for everything rare (failures, dependents, repeats), with the same restraint."""

    def restore(self, raw_data: Mapping[Any, Any]) -> Any:
        """Read the job's hash, without its callbacks and webhooks. Raises UntrustedJob."""
        fields = {k if isinstance(k, bytes) else k.encode(): v for k, v in raw_data.items()}
        fields = {k: v for k, v in fields.items() if k not in IGNORED}
        if problem := unreadable_field(fields):
            raise UntrustedJob(problem)
        if data := inflate(fields.get(b"data", b"")):
            fields[b"data"] = b""  # RQ would inflate it again, without bounds
        super().restore(fields)
        self.data = data
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks: list[Any] = []

    @property
    def func(self) -> Callable[..., Any]:
        """The job's function. Raises UntrustedJob if it is none of ours."""
        read_call(self.data)
        return job_function(self.func_name)


class TrustedQueue(Queue):  # type: ignore[misc]
    """RQ's queue, setting jobs aside whose hashes it cannot read."""

    def enqueue_ready(self) -> None:
        """Enqueue dependents whose turn it is, and which RQ left behind when others enqueued theirs, too."""
        try:
            self.set_aside_unreadable(self.connection.zrange(self.ready_job_registry.key, 0, -1))
            self.ready_job_registry.cleanup()
        except Exception:  # of what somebody put there; RQ's maintenance tries again
            self.log.exception("Queue %s: dependents that are ready wait", self.name)

    def clear_the_way(self) -> None:
        """Make RQ's maintenance possible: of any key or job that it cannot read it would end."""
        mend(self.connection, shared_kinds(self.name))
        self.set_aside_unreadable(self.connection.lrange(self.intermediate_queue_key, 0, -1))
        self.set_aside_unreadable(self.connection.zrange(self.ready_job_registry.key, 0, -1))
        for member in self.connection.zrangebyscore(self.started_job_registry.key, 0, time.time()):
            job_id = member.rpartition(b":")[0]
            if problem := self._why_unreadable(job_id):
                self._set_aside(job_id, problem, member)
            else:  # it will be failed
                mend(self.connection, kinds_beside(job_id.decode()))
                self.set_aside_unreadable_dependents(job_id.decode())

    def set_aside_unreadable_dependents(self, job_id: str) -> None:
        """Set aside what waits for a job and cannot be read: RQ would enqueue none of the others."""
        key = f"{PREFIX}:job:{job_id}:dependents"
        for dependent in self.connection.smembers(key):
            if problem := self._why_unreadable(dependent):
                self._set_aside(dependent, problem)
                self.connection.srem(key, dependent)
            else:
                mend(self.connection, kinds_beside(dependent.decode()))

    def set_aside_unreadable(self, job_ids: Iterable[bytes]) -> None:
        """Move jobs that RQ cannot read to the quarantine, wherever they wait."""
        for job_id in job_ids:
            if problem := self._why_unreadable(job_id):
                self._set_aside(job_id, problem)

    def _why_unreadable(self, job_id: bytes) -> str | None:
        try:
            validate_job_id(job_id.decode())
            self.fetch_job(job_id.decode())  # None, if it was deleted meanwhile: RQ passes over it
        except Exception as error:
            return why_unreadable(error)
        return None

    def _set_aside(self, job_id: bytes, problem: str, member: bytes = b"") -> None:
        with self.connection.pipeline() as pipeline:
            pipeline.rpush(quarantine_key(self.name), job_id)
            pipeline.lrem(self.intermediate_queue_key, 1, job_id)
            pipeline.zrem(self.started_job_registry.key, member)
            for registry in (
                self.ready_job_registry,
                self.deferred_job_registry,
                self.scheduled_job_registry,
            ):
                pipeline.zrem(registry.key, job_id)
            pipeline.execute()
        logs.error("job_quarantined", job=job_id.decode(errors="replace"), problem=problem)


def why_unreadable(error: Exception) -> str:
    """What made reading a job fail, without quoting it. Raises the error where Redis or the network did."""
    if isinstance(error, redis.RedisError | OSError) and not str(error).startswith("WRONGTYPE"):
        raise error
    return str(error) if isinstance(error, UntrustedJob) else type(error).__name__
