"""An RQ worker that drains its queue in turns: `RQ_WORKER_CLASS=worker.drain.DrainWorker rq worker notiflog`.

A stock worker forks for every job and asks Redis some 27 things about it. This one claims up to 512 waiting
jobs at once and hands them to a thread, which judges, writes and finishes them together while the next turn
is claimed. RQ's own code does everything rare: failures, retries, dependents, suspension, maintenance.
"""

import gc
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cached_property, partial
from typing import Any

import redis
from rq.command import parse_payload
from rq.exceptions import StopRequested
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.utils import now, utcformat
from rq.worker import SimpleWorker, WorkerStatus

from .. import logs
from ..logs import sentry
from ..queue.keys import shared_kinds
from ..queue.scripts import mend
from ..servers import postgres
from ..servers.redis import impatient
from ..servers.settings import settings
from . import scheduler, strict, turn
from .claimed import Turn
from .claims import TURN_JOBS, Claims, Timing
from .following import follow_primary
from .in_hand import InHand
from .ordinary import Ordinary, OrdinaryPath
from .patience import Patience
from .pulse import Pulse
from .trusted import TrustedJob, TrustedQueue
from .watch import Watch, end_at_once
from .writers import Writers

# Judging makes many short-lived objects; traversing the live ones again and again to find cycles, of which
# there are none, costs a third of the worker's time at Python's default threshold of 700.
_GC_THRESHOLD = 200_000

# How long the queue is left alone, in seconds, when it is empty and something is in flight.
_MOMENT = 0.1

# For log lines, the watch, RQ's commands and the lease of a job on RQ's ordinary path.
_OTHER_THREADS = 4

# What is made when it is first used, anew for each `work`.
_PARTS = ("_patience", "_pulse", "_claims", "_writers", "_path", "_hand")

# Where RQ's worker takes its connection among the arguments after the queues.
_POSITION_OF_CONNECTION = 3


class DrainWorker(SimpleWorker):  # type: ignore[misc]
    """RQ worker for one queue of `worker.jobs`: no fork, kept connections, many jobs a turn."""

    job_class = TrustedJob
    queue_class = TrustedQueue
    timing = Timing()
    _watch: Watch | None = None

    def __init__(self, queues: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("prepare_for_work", True):
            strict.refuse_other_classes(kwargs)
        names = strict.one_queue(queues)
        kwargs |= {
            "job_class": TrustedJob,
            "queue_class": TrustedQueue,
            "serializer": strict.plain_serializer(kwargs.get("serializer")),
            "log_job_description": False,  # it may show arguments, device tokens among them
        }
        if len(args) < _POSITION_OF_CONNECTION:
            kwargs["connection"] = strict.connection_of(queues, kwargs.get("connection"))
        super().__init__(names, *args, **kwargs)
        self._start_anew(None)

    # --- start and stop ------------------------------------------------------------------------------------

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """Work as RQ's worker does, but end with a non-zero status where RQ's loop only logs an error.

        `max_jobs` counts jobs; RQ's loop would count turns.
        """
        self._start_anew(max_jobs)
        with strict.reasons_logged():
            worked = bool(super().work(*args, **kwargs))
            if not self._ended_well and self._shutdown_requested_date is None:
                raise SystemExit("Stopped by the error logged above; unfinished jobs are back in the queue.")
        return worked

    def _start_anew(self, max_jobs: int | None) -> None:
        self._max_jobs = None if max_jobs is None else max(1, max_jobs)  # RQ takes one before it counts
        self._taken = 0
        self._last_writes = self.timing.last_writes
        self._ended_well = False
        self._fault: postgres.DatabaseFault | None = None
        for part in _PARTS:
            self.__dict__.pop(part, None)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Get ready, or refuse to start."""
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        logs.setup()
        strict.limit_memory()
        sentry.setup(wait=False)
        strict.refuse_to_lose(self.connection)
        strict.require_threads(settings().connections + _OTHER_THREADS)
        follow_primary(self.connection)
        self.connection.set_retry(self._patience)
        mend(self.connection, shared_kinds(self.queues[0].name))
        for part in _PARTS:
            getattr(self, part)  # before another thread asks for it
        try:
            super().bootstrap(*args, **kwargs)
        except ValueError:
            raise SystemExit(
                f"A worker named {self.name} is at work, or died within the last minutes: give this one "
                "another name, or none."
            ) from None
        self._watch = Watch(
            self._pulse,
            every=self.timing.look_around,
            most=self.timing.standstill,
            rescue=self._writers.hang_up,
            end=partial(end_at_once, self, self._claims),
        )

    @cached_property
    def _patience(self) -> Patience:
        return Patience(self.timing.redis_patience)

    @cached_property
    def _pulse(self) -> Pulse:
        return Pulse()

    @cached_property
    def _claims(self) -> Claims:
        return Claims(self, self.timing)

    @cached_property
    def _writers(self) -> Writers:
        return Writers(self.connection, self._pulse)

    @cached_property
    def _path(self) -> OrdinaryPath:
        return OrdinaryPath(self, self._claims)

    @cached_property
    def _hand(self) -> InHand:
        run = partial(
            turn.run,
            writers=self._writers,
            claims=self._claims,
            serializer=self.serializer,
            default_result_ttl=self.default_result_ttl,
        )
        return InHand(
            self._claims,
            self._path,
            partial(self._writers.submit, run),
            interrupt=self._writers.stop,
            moved=self._pulse.step,
            stopping=self._is_stopping,
            given_up=self._hasten_maintenance,
            dependents_ready=self.queues[0].enqueue_ready,
        )

    def _start_scheduler(self, burst: bool = False, *logging: Any) -> None:
        """Start RQ's scheduler, made careful; in burst mode have it enqueue what is due."""
        self.scheduler = scheduler.start(self, burst, *logging)

    def teardown(self) -> None:
        """End with every job finished or back in the queue."""
        # A signal may have cut off a command, whose answer is still to come: redis-py notices that on
        # connections of its own making only, not on Sentinel's.
        self.connection.connection_pool.disconnect(inuse_connections=False)
        self._writers.give_up()
        self._hand.stop_waiting(self._last_writes)
        try:
            if not self._patience.lost:
                self._hand.settle_all()
        except Exception:  # the one that ended it, most likely
            self.log.exception("Worker %s: cannot bring its last turns to an end", self.name)
            self._ended_well = False
        finally:
            try:
                if not self._patience.lost:
                    self._hand.release(suspect=not (self._ended_well or self._shutdown_requested_date))
                    self._claims.recover(())  # the answer to a claim may have been lost
                    self._claims.leave()
            finally:
                self._writers.close()
                if self._watch:
                    self._watch.stop()
                with suppress(redis.RedisError, SystemExit):  # the worker's entry expires by itself
                    super().teardown()

    def request_force_stop(self, signum: int, frame: Any) -> None:
        """Shut down cold: what is not written within a second goes back to the queue."""
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._last_writes = 0.0
            raise

    def set_shutdown_requested_date(self) -> None:
        """Tell others of the request to stop, if Redis is there: it must not raise inside whatever runs."""
        with suppress(redis.RedisError), closing(impatient(self.connection)) as soon:
            soon.hset(self.key, "shutdown_requested_date", utcformat(self._shutdown_requested_date))

    def _is_stopping(self) -> bool:
        """Whether somebody asked for a stop; then nobody waits for PostgreSQL any longer."""
        if self._stop_requested:
            self._writers.give_up()
        return bool(self._stop_requested)

    # --- the loop: claim, have it written, conclude --------------------------------------------------------

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> "tuple[Turn | Ordinary, Any] | None":
        """The next turn, or a single job for RQ's ordinary path, or None to end.

        `timeout`: None in burst mode. `max_idle_time`: seconds without a job after which to end.
        """
        queue = self.queues[0]
        idle_since = time.monotonic()
        while not self._stop_requested:
            # While busy, a signal asks for a stop; otherwise it would raise out of whatever runs.
            self._state = WorkerStatus.BUSY
            self._hand.look_around()
            if self._hand.ordinary:
                if ordinary := self._hand.next_ordinary():
                    return ordinary, queue
            elif (most := self._may_claim()) > 0:
                turn = self._claim(most)
                if turn.suspended:
                    self._stay_suspended(burst=timeout is None)
                    continue
                if turn.jobs and not turn.ordinary:
                    return turn, queue
                if not turn.taken and self._is_over(timeout is None, max_idle_time, idle_since):
                    break
            elif self._is_empty():
                break
        self._ended_well = True
        return None

    def _may_claim(self) -> int:
        """How many jobs the next turn may have."""
        return TURN_JOBS if self._max_jobs is None else self._max_jobs - self._taken

    def _claim(self, most: int) -> Turn:
        turn = self._hand.claim(most)
        self._taken += len(turn.jobs)
        return turn

    def _is_empty(self) -> bool:
        """Whether all that was taken is done: the last turn may hold a job for RQ's ordinary path."""
        self._hand.settle_all()
        if self._hand.busy:
            self._hand.settle_some(_MOMENT)
        return not self._hand.ordinary and not self._hand.busy

    def _is_over(self, burst: bool, max_idle_time: int | None, idle_since: float) -> bool:
        """Whether an empty queue ends the worker. If not, waits for jobs, or for what is in flight."""
        if self._hand.busy:
            self._hand.settle_some(_MOMENT)
            return False
        idle = time.monotonic() - idle_since
        if burst or (max_idle_time is not None and idle >= max_idle_time):
            return True
        left = max_idle_time - idle if max_idle_time is not None else self.timing.look_around
        self._idle(min(self.timing.look_around, max(left, _MOMENT)))
        return False

    def _idle(self, seconds: float) -> None:
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()
        self.set_state(WorkerStatus.IDLE)
        self._claims.wait(seconds)

    def execute_job(self, job: "Turn | Ordinary", queue: Any) -> None:
        """Have a turn written; or run a single job as RQ does."""
        if isinstance(job, Ordinary):
            with self._at_leisure():
                self._path.run(job)
            self._hand.forget_ordinary()
            if self._fault:
                raise SystemExit(f"Stopped: {self._fault}")
        elif job.suspect:
            self._hand.settle_all()  # it shall not take others along
            self._hand.start(job.jobs)
            self._hand.settle_all()
        else:
            self._hand.start(job.jobs)
            self._hand.settle_to(settings().connections)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log why a job failed; RQ's own line quotes the exception and carries the job's arguments."""
        logs.error("job_failed", job=job.id, **logs.describe(exc_info[1]))
        if isinstance(exc_info[1], postgres.DatabaseFault):
            self._fault = exc_info[1]
        call_exception_handlers(self._exc_handlers, job, *exc_info)

    def _finalize_failure(self, job: Job, queue: Any, execution: Any, exc_info: Any) -> None:
        """Fail a job as RQ does; but what ends this worker is no fault of the job's, which goes back."""
        if isinstance(exc_info[1], SystemExit):
            raise exc_info[1]
        super()._finalize_failure(job, queue, execution, exc_info)

    # --- RQ's signs of life, commands, suspension and maintenance ------------------------------------------

    def heartbeat(self, *args: Any, **kwargs: Any) -> None:
        """Say that this worker lives, unless Redis is too full for that.

        Without arguments RQ calls it after each turn, in three round trips: a claim says so already, and
        `look_around` every few seconds.
        """
        if args or kwargs:
            with suppress(redis.OutOfMemoryError):
                super().heartbeat(*args, **kwargs)

    def set_state(self, *args: Any, **kwargs: Any) -> None:
        """Say what this worker does, unless Redis is too full for that."""
        with suppress(redis.OutOfMemoryError):
            super().set_state(*args, **kwargs)

    def handle_payload(self, message: Any) -> None:
        """Follow a command that came by pub/sub; what is none ends nothing."""
        try:
            payload = parse_payload(message)
            command, job_id = payload["command"], str(payload.get("job_id", ""))
            if command == "kill-horse":
                self.log.warning("Worker %s: there is no horse to kill, see `stop-job`", self.name)
            elif command not in ("stop-job", "stop-execution"):
                super().handle_payload(message)
            elif not self._hand.stop(job_id):
                self.log.warning("Worker %s: not recording that job, %s is ignored", self.name, command)
        except Exception:
            self.log.exception("Worker %s: a command that cannot be read is ignored", self.name)

    def check_for_suspension(self, burst: bool) -> None:
        """Nothing: before each turn RQ asks, and so does the claim, in a round trip that is made anyway."""

    def _stay_suspended(self, *, burst: bool) -> None:
        """Wait as long as the workers are suspended, with nothing in hand; in burst mode, end."""
        self._hand.settle_all()
        self._hand.release()  # nobody keeps the lease of what waits meanwhile
        try:
            with self._at_leisure():
                super().check_for_suspension(burst)
        except StopRequested:
            self._ended_well = True
            raise

    def run_maintenance_tasks(self) -> None:
        """Run RQ's maintenance, after taking over, or setting aside, what it would fail or fail on."""
        self._hand.look_around()
        self._state = WorkerStatus.BUSY  # otherwise a signal would raise, and be taken for an error
        try:
            with self._at_leisure():  # there may be much to tidy
                self.queues[0].clear_the_way()
                super().run_maintenance_tasks()
        except Exception:
            # Of what somebody put there. Without this the lock would keep everybody from maintenance.
            self.log.exception("Worker %s: maintenance failed", self.name)
            self.queues[0].release_maintenance_lock()
            self.last_cleaned_at = now()

    def _hasten_maintenance(self) -> None:
        self.last_cleaned_at = None  # it moves what was given up to the failed registry

    @contextmanager
    def _at_leisure(self) -> Iterator[None]:
        """Within the block RQ's own limits hold, if any."""
        self._pulse.rest()
        try:
            yield
        finally:
            self._pulse.step()
