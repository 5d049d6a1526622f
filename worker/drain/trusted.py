"""RQ's Job and Queue for all that is rare, with the restraint of `queue.plain`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from rq.job import Job, validate_job_id
from rq.queue import Queue

from .. import logs
from ..queue.fields import IGNORED, unreadable_field
from ..queue.keys import quarantine_key
from ..queue.plain import UntrustedJob, inflate, job_function, read_call


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
    """RQ's queue, setting a job aside whose hash it cannot read."""

    def set_aside(self, job_id: str | bytes, problem: str, member: bytes = b"") -> None:
        """Move a job from the intermediate queue, or a member of the started registry, to the quarantine."""
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(self.intermediate_queue_key, 1, job_id)
            pipeline.zrem(self.started_job_registry.key, member)
            pipeline.rpush(quarantine_key(self.name), job_id)
            pipeline.execute()
        name = job_id if isinstance(job_id, str) else job_id.decode(errors="replace")
        logs.error("job_quarantined", job=name, problem=problem)

    def set_aside_unreadable(self) -> None:
        """Clear the way for RQ's maintenance of jobs on which it would end."""
        taken = [(job_id, b"") for job_id in self.connection.lrange(self.intermediate_queue_key, 0, -1)]
        expired = self.connection.zrangebyscore(self.started_job_registry.key, 0, time.time())
        for job_id, member in taken + [(member.rpartition(b":")[0], member) for member in expired]:
            try:
                validate_job_id(job_id.decode())
                self.fetch_job(job_id.decode())
            except Exception as error:
                self.set_aside(job_id, why_unreadable(error), member)


def why_unreadable(error: Exception) -> str:
    """What made reading a job fail, without quoting it. Raises the error where Redis or the network did."""
    if isinstance(error, redis.RedisError | OSError) and not str(error).startswith("WRONGTYPE"):
        raise error
    return str(error) if isinstance(error, UntrustedJob) else type(error).__name__
