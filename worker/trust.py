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
import resource
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import redis
from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job, JobStatus, validate_job_id
from rq.queue import Queue

from worker import logs

#: The functions a job may name.
JOB_FUNCTIONS = frozenset({"worker.jobs.record_outcomes", "worker.jobs.sweep_tokens"})
#: A job's data may inflate to this much: 10,000 events are about 10 MB.
MAX_INFLATED_BYTES = 64 << 20
#: A worker may hold this much in memory. Usual is a tenth.
MAX_MEMORY_BYTES = 1 << 30

# What plain payloads of Python producers may carry besides JSON's types.
_PLAIN_CLASSES = {
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("uuid", "UUID"),
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


def limit_memory() -> None:
    """Have this process refuse what asks for more memory: nine bytes of pickle can ask for 64 GB."""
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    limit = min([MAX_MEMORY_BYTES, *(known for known in limits if known != resource.RLIM_INFINITY)])
    with suppress(ValueError, OSError):  # macOS may refuse, and does not enforce it anyway
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limits[1]))


def read_call(data: bytes) -> tuple[Any, ...]:
    """The positional arguments of the job stored as `data`; none: it is the sweep. Raises UntrustedJob."""
    try:
        function, instance, args, kwargs = PlainSerializer.loads(inflate(data))
        by_keyword = not args and list(kwargs) == ["events"]
        args = list(kwargs.values() if by_keyword else args)
    except UntrustedJob:
        raise
    except Exception:
        # Whatever a hostile or broken pickle makes the unpickler raise; its text may quote the data.
        raise UntrustedJob(
            "the job's data cannot be read: enqueue plain JSON types with RQ's default or json serializer"
        ) from None
    if not isinstance(function, str) or function not in JOB_FUNCTIONS or instance is not None:
        raise UntrustedJob(
            f"this worker only runs {', '.join(sorted(JOB_FUNCTIONS))}: enqueue other functions on a queue "
            "of their own"
        )
    if function == "worker.jobs.sweep_tokens":
        if args or kwargs:
            raise UntrustedJob("worker.jobs.sweep_tokens takes no argument")
        return ()
    if len(args) != 1 or (kwargs and not by_keyword):
        raise UntrustedJob("worker.jobs.record_outcomes takes one argument: the list of events")
    return tuple(args)


class TrustedJob(Job):  # type: ignore[misc]
    """RQ's job for everything rare (failures, dependents, repeats), with the same restraint."""

    def restore(self, raw_data: Mapping[Any, Any]) -> Any:
        """Read the job's hash, without its callbacks and webhooks. Raises UntrustedJob."""
        fields = {k if isinstance(k, bytes) else k.encode(): v for k, v in raw_data.items()}
        fields = {k: v for k, v in fields.items() if k not in _IGNORED}
        if problem := unreadable_field(fields):
            raise UntrustedJob(problem)
        if data := inflate(fields.get(b"data", b"")):
            fields[b"data"] = b""  # RQ would inflate it again, without bounds
        super().restore(fields)
        self.data = data
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks: list[Any] = []

    @property
    def func(self) -> Callable[..., Any] | None:
        """The job's function. Raises UntrustedJob if it is none of ours."""
        read_call(self.data)
        return super().func  # type: ignore[no-any-return]


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


_TIME = re.compile(
    rb"(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z"
)


def _is_time(value: bytes) -> bool:
    if not _TIME.fullmatch(value):
        return False
    if value[8:10] <= b"28":  # a day of every month
        return True
    try:
        datetime.fromisoformat(value[:19].decode())
    except ValueError:
        return False
    return True


def _is_list(value: bytes) -> bool:
    try:
        return isinstance(json.loads(value.decode()), list)
    except (ValueError, RecursionError):
        return False


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


_is_number = re.compile(rb"-?\d{1,12}").fullmatch
_is_status = re.compile("|".join(JobStatus).encode()).fullmatch

_READABLE: dict[Callable[[bytes], object], tuple[bytes, ...]] = {
    _is_time: (b"created_at", b"enqueued_at", b"started_at", b"ended_at", b"last_heartbeat"),
    _is_number: (
        b"timeout",
        b"result_ttl",
        b"failure_ttl",
        b"ttl",
        b"success_callback_timeout",
        b"failure_callback_timeout",
        b"stopped_callback_timeout",
        b"number_of_retries",
        b"retries_left",
        b"repeats_left",
        b"rate_limit_concurrency",
        b"enqueue_at_front",
        b"enqueue_at_front_on_retry",
        b"allow_dependency_failures",
    ),
    _is_status: (b"status",),
    _is_list: (b"retry_intervals", b"repeat_intervals", b"dependency_ids"),
    _is_text: (
        b"origin",
        b"description",
        b"worker_name",
        b"group_id",
        b"rate_limit_key",
        b"dependency_id",
    ),
}
_CHECKS = {name: check for check, names in _READABLE.items() for name in names}
# Read by nobody, or with care.
_UNCHECKED = _IGNORED | {b"data", b"meta"}
# RQ takes an empty field for one that is not there, except in these.
_NEVER_EMPTY = {
    b"success_callback_timeout",
    b"failure_callback_timeout",
    b"stopped_callback_timeout",
    b"enqueue_at_front",
}


def unreadable_field(fields: Mapping[bytes, bytes]) -> str | None:
    """Which field of a job's hash RQ could not read or work with, as a sentence; or None.

    RQ's worker ends, with exit status 0, on a job whose hash it cannot read.
    """
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check and (value or name in _NEVER_EMPTY) and not check(value):
            return f"field {name.decode()} cannot be read"
        if not check and name not in _UNCHECKED and not _is_text(name):
            return "a field's name is not text"
    return None
