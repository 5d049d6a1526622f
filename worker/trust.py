"""What the worker trusts in Redis: plain data and its own job functions, nothing else.

Whoever can write to Redis can put anything into a job. RQ's default unpickling would run code found there,
and its function, callback and webhook fields name what to call and where to post. Here a job's data is
inflated within bounds, unpickled (or parsed as JSON) into plain types only, and nothing but this project's
jobs is run. A default producer (`Queue.enqueue`) need not change anything.
"""

import io
import json
import pickle
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import redis
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus
from rq.queue import Queue

from worker import logs

#: The functions a job may name.
JOB_FUNCTIONS = frozenset({"worker.jobs.record_outcomes"})
#: A job's data may inflate to this much: 10,000 events are about 10 MB.
MAX_INFLATED_BYTES = 64 << 20

# What plain payloads of Python producers may carry besides JSON's types.
_PLAIN_CLASSES = {
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("uuid", "UUID"),
    ("uuid", "SafeUUID"),
    ("decimal", "Decimal"),
}


class UntrustedJob(Exception):
    """The job's data is not something this worker runs; says what, without quoting the data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN_CLASSES:
            raise pickle.UnpicklingError("only plain data is accepted")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("only plain data is accepted")


class PlainSerializer:
    """RQ's serializer interface: writes what RQ writes by default, reads plain pickles and JSON."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """Pickle, as RQ's default serializer does."""
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Read plain data from a pickle or from JSON. Raises pickle.UnpicklingError or ValueError."""
        if data[:1] in (b"[", b"{", b'"'):
            return json.loads(data)
        return _PlainUnpickler(io.BytesIO(data)).load()


class PlainJsonSerializer(PlainSerializer):
    """The same for a worker started with RQ's json serializer: its results are JSON, too."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """JSON, as RQ's json serializer does."""
        return json.dumps(value).encode()


def inflate(data: bytes) -> bytes:
    """Undo RQ's compression within MAX_INFLATED_BYTES. Raises UntrustedJob."""
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        return data  # as RQ does: stored uncompressed
    if inflater.unconsumed_tail:
        raise UntrustedJob(f"the job's data inflates to more than {MAX_INFLATED_BYTES >> 20} MiB")
    return inflated


def read_call(data: bytes) -> tuple[Any, ...]:
    """The positional arguments of the job stored as `data`. Raises UntrustedJob."""
    try:
        function, instance, args, kwargs = PlainSerializer.loads(inflate(data))
    except UntrustedJob:
        raise
    except Exception:
        # Whatever a hostile or broken pickle makes the unpickler raise; its text may quote the data.
        raise UntrustedJob(
            "the job's data cannot be read: enqueue plain JSON types with RQ's default or json serializer"
        ) from None
    if function not in JOB_FUNCTIONS or instance is not None:
        raise UntrustedJob(
            f"this worker only runs {', '.join(sorted(JOB_FUNCTIONS))}: enqueue other functions on a queue "
            "of their own"
        )
    if kwargs:
        args = (*args, *kwargs.values()) if not args and set(kwargs) == {"events"} else ()
    if not isinstance(args, list | tuple) or len(args) != 1:
        raise UntrustedJob("worker.jobs.record_outcomes takes one argument: the list of events")
    return tuple(args)


class TrustedJob(Job):  # type: ignore[misc]
    """RQ's job for everything rare (failures, dependents, repeats), with the same restraint."""

    def restore(self, raw_data: Mapping[Any, Any]) -> Any:
        """Read the job's hash, without its callbacks and webhooks."""
        fields = {k if isinstance(k, bytes) else k.encode(): v for k, v in raw_data.items()}
        if b"data" in fields:
            fields[b"data"] = inflate(fields[b"data"])
        restored = super().restore({k: v for k, v in fields.items() if k not in _IGNORED})
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks: list[Any] = []
        return restored

    @property
    def func(self) -> Callable[..., Any] | None:
        """The job's function. Raises UntrustedJob if it is none of ours."""
        read_call(self.data)
        return super().func  # type: ignore[no-any-return]


class TrustedQueue(Queue):  # type: ignore[misc]
    """RQ's queue, setting a job aside whose hash it cannot read."""

    @classmethod
    def _fetch_dequeued_job(cls, connection: Any, queue_key: str, job_id: str, **options: Any) -> Any:
        try:
            return super()._fetch_dequeued_job(connection, queue_key, job_id, **options)
        except (redis.RedisError, OSError):
            raise
        except Exception as error:  # whatever RQ's reading of a hostile hash raises
            queue = cls.from_queue_key(queue_key, connection=connection)
            queue.set_aside(job_id, type(error).__name__)
            return None

    def set_aside(self, job_id: str, problem: str) -> None:
        """Move a job from the intermediate queue to the quarantine."""
        with self.connection.pipeline() as pipeline:
            pipeline.lrem(self.intermediate_queue_key, 1, job_id)
            pipeline.rpush(quarantine_key(self.name), job_id)
            pipeline.execute()
        logs.error("job_quarantined", job=job_id, problem=problem)

    def set_aside_unreadable(self) -> None:
        """Clear the intermediate queue of jobs on which RQ's maintenance would end the worker."""
        for job_id in self.intermediate_queue.get_job_ids():
            try:
                self.fetch_job(job_id)
            except (redis.RedisError, OSError):
                raise
            except Exception as error:  # as above
                self.set_aside(job_id, type(error).__name__)


def quarantine_key(queue: str) -> str:
    """The Redis list of the ids of jobs that were set aside."""
    return f"{RQ_KEY_PREFIX}:notiflog:quarantine:{queue}"


_IGNORED = {
    b"success_callback_name",
    b"failure_callback_name",
    b"stopped_callback_name",
    b"webhooks",
    b"result",  # a legacy field, unpickled by whoever fetches the job
    b"exc_info",
}

_NUMBER = re.compile(rb"-?\d{1,12}")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_READABLE: dict[bytes, re.Pattern[bytes]] = {
    b"created_at": _TIME,
    b"enqueued_at": _TIME,
    b"started_at": _TIME,
    b"ended_at": _TIME,
    b"last_heartbeat": _TIME,
    b"timeout": re.compile(rb"-?\d{1,12}[dhms]?"),
    b"result_ttl": _NUMBER,
    b"failure_ttl": _NUMBER,
    b"ttl": _NUMBER,
    b"success_callback_timeout": _NUMBER,
    b"failure_callback_timeout": _NUMBER,
    b"stopped_callback_timeout": _NUMBER,
    b"number_of_retries": _NUMBER,
    b"retries_left": _NUMBER,
    b"repeats_left": _NUMBER,
    b"rate_limit_concurrency": _NUMBER,
    b"enqueue_at_front": _NUMBER,
    b"enqueue_at_front_on_retry": _NUMBER,
    b"allow_dependency_failures": _NUMBER,
    b"status": re.compile("|".join(JobStatus).encode()),
    b"retry_intervals": re.compile(rb"\[[\d., ]*\]"),
    b"repeat_intervals": re.compile(rb"\[[\d., ]*\]"),
    b"dependency_ids": re.compile(rb"\[.*\]", re.DOTALL),
}
_TEXT = (b"origin", b"description", b"worker_name", b"group_id", b"rate_limit_key", b"dependency_id")


def unreadable_field(fields: Mapping[bytes, bytes]) -> str | None:
    """The name of a field of a job's hash on which RQ's own reading of it would fail, or None.

    RQ's worker ends, with exit status 0, on a job whose hash it cannot read.
    """
    for name, pattern in _READABLE.items():
        value = fields.get(name)
        if value and not pattern.fullmatch(value):
            return name.decode()
    for name in _TEXT:
        value = fields.get(name)
        if value and not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return name.decode()
    return None
