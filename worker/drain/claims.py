"""The queue as one draining worker sees it: claim many jobs, finish them, give them back, take over.

Each step is one server-side script (`*.lua`), so a job is always in exactly one place: the queue, the started
registry under some worker's name, or finished.
"""

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec
import redis
from rq import worker_registration
from rq.defaults import RQ_KEY_PREFIX
from rq.suspension import WORKERS_SUSPENDED
from rq.utils import now, utcformat

from .. import logs
from ..queue.keys import (
    LARGEST_DATA,
    MOST_RECOVERIES,
    kinds_beside,
    leases_key,
    quarantine_key,
    shared_kinds,
)
from ..queue.scripts import script
from ..record import counters
from ..servers.postgres import STATEMENT_TIMEOUT
from .claimed import Claimed, Done, Member, Returned, Turn

#: A turn: enough to share a commit among, small enough for Redis not to notice and a kill to cost little.
TURN_JOBS = 512
TURN_BYTES = 192 << 10


# Seconds; no worker is given a longer one.
_LONGEST_LEASE = 60


class Timing(NamedTuple):
    """How long things may take, in seconds."""

    #: A silent worker keeps its jobs so long, by the Redis server's clock.
    lease: float = 15
    #: So often a worker says that it lives and looks for those that do not: a killed worker's jobs run
    #: elsewhere after a lease and this at most.
    look_around: float = 5.0
    #: Redis away for longer ends the worker.
    redis_patience: float = 60.0
    #: A worker that is to stop waits so long for what is being written.
    last_writes: float = STATEMENT_TIMEOUT
    #: Work that stands still for longer ends the worker: between two steps there may be a turn's three
    #: statements, for the rows and for two tables of tokens, its commit, and a new connection.
    standstill: float = 3 * STATEMENT_TIMEOUT + 30


class Claims:
    """The scripts, bound to one worker and its queue.

    Every call may be repeated; a claim whose answer was lost is found again by `recover`.
    """

    def __init__(self, worker: Any, timing: Timing) -> None:
        self._worker = worker
        self.timing = timing
        self._redis = worker.connection
        self._queue = worker.queues[0]
        self._started = self._queue.started_job_registry.key
        self._finished = self._queue.finished_job_registry.key
        self._leases = leases_key(self._queue.name)
        self._quarantine = quarantine_key(self._queue.name)
        # Part of every execution id of this worker, so that the started registry alone tells whose job it is.
        self._holder = uuid4().hex
        self._turns = count()
        self._finishes = count()
        here = Path(__file__)
        self._claim, self._beat, self._hold, self._release = (
            script(self._redis, here.with_name(f"{name}.lua"))
            for name in ("claim", "beat", "hold", "release")
        )
        self._finish = script(self._redis, here.with_name("finish.lua"), counters.LUA)

    def claim(self, most: int) -> Turn:
        """Claim up to `most` waiting jobs; what is no job at all is set aside."""
        keys = (
            self._queue.key,
            self._started,
            self._worker.key,
            self._worker.executions_key,
            self._leases,
            self._quarantine,
            WORKERS_SUSPENDED,
        )
        arguments = (
            RQ_KEY_PREFIX,
            self._worker.name,
            self._holder,
            next(self._turns),
            utcformat(now()),
            min(most, TURN_JOBS),
            TURN_BYTES,
            LARGEST_DATA,
            self.timing.lease,
            self._worker.worker_ttl,
        )
        taken, claimed, ordinary, quarantined, renamed, suspended = self._claim(keys, arguments)
        jobs = [
            Claimed(
                job_id.decode(),
                execution.decode(),
                data,
                result_ttl,
                recovered=recoveries is not None,
                counted=bool(recoveries or counted),
            )
            for job_id, execution, data, result_ttl, recoveries, counted in claimed
        ]
        for job_id in quarantined:
            name = job_id.decode(errors="replace")
            logs.error(
                "job_quarantined",
                job=name,
                problem="no job, too large, or of an id that RQ does not allow while others wait for it",
            )
        for job_id, was in renamed:
            logs.warning("job_renamed", job=job_id.decode(), was=was.decode(errors="replace"))
        return Turn(jobs, taken, bool(ordinary), bool(suspended))

    def finish(
        self, done: Sequence[Done], started_at: float, seconds: float, numbers: Mapping[str, int]
    ) -> set[str]:
        """Finish committed jobs; returns the ids of those that RQ's own code must finish.

        `numbers`: of the whole turn, to be counted; not where another worker took it over, which counts it.
        """
        keys = (self._started, self._finished, self._worker.key, self._worker.executions_key, counters.KEY)
        once = f"{self._holder}-{next(self._finishes)}"
        # One argument for all jobs: each that there is costs both sides a microsecond.
        jobs = msgspec.json.encode([(job.job_id, job.execution_id, ttl, result) for job, ttl, result in done])
        head = (RQ_KEY_PREFIX, utcformat(now()), self._worker.name, started_at, seconds, once, jobs)
        arguments = (*head, *counters.arguments(numbers))
        return {job_id.decode() for job_id in self._finish(keys, arguments)}

    def holds(self, job: Claimed) -> bool:
        """Whether a job is still this worker's: it may have stalled, and another taken the job over.

        Keys of another type than RQ's code expects, beside the job or shared, are out of its way then.
        """
        others = kinds_beside(job.job_id) | shared_kinds(self._queue.name)
        return bool(self._hold((self._started, *others), (job.member, *others.values())))

    def release(self, members: Sequence[Member], *, counted: bool = False, suspect: bool = False) -> Returned:
        """Put this worker's own jobs back to the front of the queue.

        `counted`: the brake has their answers. `suspect`: one of them may be what ends the worker, so that
        they may come back this way a few times only.
        """
        most = MOST_RECOVERIES if suspect else 0
        return self._give_back(self._queue.key, "queued", most, members, counted=counted)

    def quarantine(self, job: Claimed) -> None:
        """Set one of this worker's jobs aside, its hash untouched."""
        self._give_back(self._quarantine, "", 0, [job.member])

    def beat(self, members: Sequence[Member]) -> int:
        """Say that this worker is alive, and that it still has these jobs.

        Returns how many dependents are ready to be enqueued.
        """
        ready_registry = self._queue.ready_job_registry.key
        keys = (self._started, self._worker.key, self._worker.executions_key, self._leases, ready_registry)
        arguments = (self._holder, self.timing.lease, self._worker.worker_ttl, utcformat(now()), *members)
        ready, renamed = self._beat(keys, arguments)
        for key in renamed:
            logs.error("key_renamed", key=key.decode(errors="replace"))
        return int(ready)

    @contextmanager
    def kept(self, members: Sequence[Member]) -> Iterator[None]:
        """Keep saying so while the block runs."""
        done = threading.Event()

        def keep() -> None:
            while not done.wait(self.timing.look_around):
                with suppress(SystemExit):  # ends nothing here, and Redis may come back
                    self.beat(members)

        keeper = threading.Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def recover(self, held: Collection[Member]) -> Returned:
        """Take back the jobs of draining workers that went silent, and own ones that are not in `held`.

        The latter were claimed by a call whose answer was lost.
        """
        started, alive = self._started_and_alive()
        known = set(held)
        others = {None, self._holder, *alive}
        own = [member for member in started if member.holder == self._holder and member not in known]
        silent = [member for member in started if member.holder not in others]
        return self._give_back(self._queue.key, "queued", MOST_RECOVERIES, own + silent, counted=True)

    def _started_and_alive(self) -> tuple[list[Member], set[str]]:
        """The members of the started registry, and the holders of leases that have not ended."""
        seconds = self._redis.time()[0]
        with self._redis.pipeline() as pipeline:
            pipeline.zrangebyscore(self._started, 1, "+inf")  # lower: given up, for RQ's maintenance
            pipeline.zremrangebyscore(self._leases, "-inf", seconds)
            # A lease that ends later than any given now is of a clock that was ahead.
            pipeline.zremrangebyscore(self._leases, seconds + _LONGEST_LEASE, "+inf")
            pipeline.zrange(self._leases, 0, -1)
            started, _, _, alive = pipeline.execute()
        return [Member(raw) for raw in started], {holder.decode(errors="replace") for holder in alive}

    def leave(self) -> None:
        """Say that this worker ends, with nothing left to take over."""
        with self._redis.pipeline() as pipeline:
            pipeline.zrem(self._leases, self._holder)
            pipeline.hdel(self._worker.key, "lease")
            pipeline.execute()

    def desert(self, redis: redis.Redis) -> None:
        """Say, by another client, that this worker ends and tidies nothing up: others take its jobs."""
        with redis.pipeline() as pipeline:
            pipeline.zrem(self._leases, self._holder)
            worker_registration.unregister(self._worker, pipeline)
            pipeline.execute()

    def wait(self, seconds: float) -> None:
        """Wait until the queue has a job, at most `seconds`; takes none."""
        # Moving the front to the front blocks while the list is empty and changes nothing.
        try:
            self._redis.blmove(self._queue.key, self._queue.key, seconds, "LEFT", "LEFT")
        except redis.OutOfMemoryError:  # a full Redis refuses even that
            time.sleep(min(seconds, 1))

    def _give_back(
        self, destination: str, status: str, most: int, members: Sequence[Member], *, counted: bool = False
    ) -> Returned:
        if not members:
            return Returned(0, 0)
        arguments = (RQ_KEY_PREFIX, status, most, "counted" if counted else "", *members)
        return Returned(*self._release((destination, self._started), arguments))
