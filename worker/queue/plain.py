"""What the worker trusts in Redis: plain data and its own job functions, nothing else.

Whoever can write to Redis can put anything into a job. RQ's default unpickling would run code found there,
and its function, callback and webhook fields name what to call and where to post. Here a job's data is
inflated within bounds, unpickled (or parsed as JSON) into plain types only, and nothing but this project's
jobs is run. A default producer (`Queue.enqueue`) need not change anything.
"""

import io
import json
import pickle
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from .. import NAME
from .keys import JOB, JOB_FUNCTIONS, RETAIN, SWEEP, TIDY

#: A job's data may inflate to this much: 10,000 events are about 10 MB.
MAX_INFLATED_BYTES = 64 << 20

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


class RecordCall(NamedTuple):
    """A call of `record_outcomes`."""

    #: Whatever the producer put there; a list of payloads, if it is one of ours.
    events: Any


class PeriodicCall(NamedTuple):
    """A call of one of the periodic jobs, which take nothing."""


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
        if _is_json(data):
            return json.loads(data)
        return _PlainUnpickler(io.BytesIO(data)).load()


class PlainJsonSerializer(PlainSerializer):
    """The same for a worker started with RQ's json serializer: its results are JSON, too."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        """JSON, as RQ's json serializer does."""
        return json.dumps(value).encode()


def _is_json(data: bytes) -> bool:
    return data[:1] in (b"[", b"{", b'"')


def inflate(data: bytes) -> bytes:
    """Undo RQ's compression within MAX_INFLATED_BYTES. Raises UntrustedJob."""
    if data and data[0] & 15 != 8:  # no stream of zlib's begins so, but every pickle and JSON does
        return data
    inflater = zlib.decompressobj()
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error:
        return data  # as RQ does: stored uncompressed
    if inflater.unconsumed_tail:
        raise UntrustedJob(f"the job's data inflates to more than {MAX_INFLATED_BYTES >> 20} MiB")
    return inflated


def read_call(data: bytes) -> RecordCall | PeriodicCall:
    """What the job stored as `data` calls. Raises UntrustedJob if that is none of ours."""
    function, instance, args, kwargs = _load(data)
    if not isinstance(function, str) or function not in JOB_FUNCTIONS or instance is not None:
        raise UntrustedJob(
            f"this worker only runs {JOB}, {SWEEP}, {TIDY} and {RETAIN}: enqueue other functions on a queue "
            "of their own"
        )
    if JOB_FUNCTIONS[function] != "record_outcomes":
        if args or kwargs:
            raise UntrustedJob(f"{function} takes no argument")
        return PeriodicCall()
    if len(args) != 1 or kwargs:
        raise UntrustedJob(f"{function} takes one argument: the list of events")
    return RecordCall(*args)


def with_events(data: bytes, events: list[Any]) -> bytes:
    """The job stored as `data`, with other events, in the form in which it stands. Raises UntrustedJob.

    `data` must be a RecordCall's, see `read_call`.
    """
    function, *_ = _load(data)
    serializer = PlainJsonSerializer if _is_json(inflate(data)) else PlainSerializer
    try:
        return zlib.compress(serializer.dumps((function, None, (events,), {})))
    except Exception:  # of what somebody put among the events
        raise UntrustedJob("the job's data cannot be written again") from None


def _load(data: bytes) -> tuple[Any, Any, list[Any], dict[Any, Any]]:
    """A job's function, instance and arguments; `events` given by name stands among the positional ones."""
    try:
        function, instance, args, kwargs = PlainSerializer.loads(inflate(data))
        if not args and list(kwargs) == ["events"]:
            return function, instance, list(kwargs.values()), {}
        return function, instance, list(args), kwargs
    except UntrustedJob:
        raise
    except Exception:
        # Whatever a hostile or broken pickle makes the unpickler raise; its text may quote the data.
        raise UntrustedJob(
            "the job's data cannot be read: enqueue plain JSON types with RQ's default or json serializer"
        ) from None


def job_function(name: str) -> Callable[..., Any]:
    """One of JOB_FUNCTIONS: ours, whatever else is called `worker` here."""
    function: Callable[..., Any] = getattr(import_module(f"{NAME}.jobs"), JOB_FUNCTIONS[name])
    return function
