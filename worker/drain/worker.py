"""An RQ worker that drains its queue in turns: `RQ_WORKER_CLASS=worker.drain.DrainWorker rq worker notiflog`.

A stock worker forks for every job and asks Redis some 27 things about it. This one claims up to 512 waiting
jobs at once and hands them to a committer, which judges, writes and finishes them together while the next
turn is claimed. RQ's own code does everything rare: failures, retries, dependents, suspension, maintenance.
"""

import gc
import math
import time
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, NamedTuple

import redis
from rq.suspension import is_suspended
from rq.worker import WorkerStatus

from .. import logs
from ..queue.plain import UntrustedJob
from ..servers import postgres
from ..servers.settings import settings
from .claims import TURN_JOBS, Claimed, Claims, Timing, Turn
from .ordinary import HandingWorker, Ordinary
from .turn import Rest, fault, run
from .writers import Committers, GivenUp

# Judging makes many short-lived objects; traversing the live ones again and again to find cycles, of which
# there are none, costs a third of the worker's time at Python's default threshold of 700.
_GC_THRESHOLD = 200_000

# How long the queue is left alone, in seconds, when it is empty and something is in flight.
_MOMENT = 0.1


class _InFlight(NamedTuple):
    """A turn that is being judged and written."""

    jobs: list[Claimed]
    rest: "Future[Rest]"


class DrainWorker(HandingWorker):
    """RQ worker for `worker.jobs.record_outcomes`: no fork, kept connections, many jobs a turn."""

    timing = Timing()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._claimed: list[Claimed] = []  # not in flight yet
        self._ordinary: list[Claimed] = []  # not in flight any more, for RQ's ordinary path
        self._in_flight: deque[_InFlight] = deque()
        self._patience = float(postgres.STATEMENT_TIMEOUT)
        self._max_jobs: int | None = None
        self._taken = 0
        self._looked_around = float("-inf")

    # --- start and stop --------------------------------------------------------------------------------

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """Work as RQ's worker does. `max_jobs` counts jobs; RQ's loop would count turns."""
        self._max_jobs = max_jobs
        return super().work(*args, **kwargs)

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """Get ready, or refuse to start."""
        self._claims = Claims(self, self.timing)
        gc.freeze()
        gc.set_threshold(_GC_THRESHOLD)
        super().bootstrap(*args, **kwargs)
        self._committers = Committers(self.connection)

    def teardown(self) -> None:
        """End with every job finished or back in the queue."""
        self._committers.give_up()
        try:
            if not self._claims.lost:
                self._settle(patience=self._patience)
        finally:
            try:
                if not self._claims.lost:
                    self._release()
                    self._claims.recover(())  # the answer to a claim may have been lost
                    self._claims.leave()
            finally:
                self._committers.close()
                with suppress(redis.RedisError):  # the worker's entry expires by itself
                    super().teardown()

    def request_force_stop(self, signum: int, frame: Any) -> None:
        """Shut down cold: what is not written within a second goes back to the queue."""
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._patience = 0.0
            raise

    def check_for_suspension(self, burst: bool) -> None:
        """Finish what is in flight before a suspension."""
        # RQ's own check writes a heartbeat each time, which a full Redis refuses.
        if self._claims.patiently(lambda: is_suspended(self.connection)):
            self._settle()
            self._release()  # nobody keeps the lease of what waits meanwhile
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """Run RQ's maintenance, after taking over what it would fail."""
        self._look_around()
        super().run_maintenance_tasks()

    # --- the loop: claim, hand to a committer, conclude ---------------------------------------------------

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
            self._look_around()
            if self._ordinary:
                if ordinary := self._take_ordinary():
                    return ordinary, queue
                continue
            most = TURN_JOBS if self._max_jobs is None else self._max_jobs - self._taken
            if most <= 0:
                self._settle()  # the last turn may hold a job for RQ's ordinary path
                if self._ordinary:
                    continue
                break
            turn = self._claims.claim(most)
            self._taken += len(turn.jobs)
            if turn.ordinary:
                self._ordinary = turn.jobs
                continue
            if turn.jobs:
                self._claimed = turn.jobs
                return turn, queue
            if turn.taken:
                continue
            if self._in_flight:
                wait([self._in_flight[0].rest], timeout=_MOMENT)  # jobs may come before it is written
                self._settle(0)
                continue
            if timeout is None:
                break
            if max_idle_time is not None and time.monotonic() - idle_since >= max_idle_time:
                break
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            self.set_state(WorkerStatus.IDLE)
            seconds = self.timing.look_around
            self._claims.wait(min(seconds, max_idle_time or seconds))
            self.check_for_suspension(burst=False)
        self._ended_well = True
        return None

    def execute_job(self, job: "Turn | Ordinary", queue: Any) -> None:
        """Start a turn in one of the committers; or run a single job as RQ does."""
        if isinstance(job, Ordinary):
            with self._claims.kept([job.claimed.member]):
                self.perform_job(job.job, queue, job.execution)
            self._ordinary.pop(0)
            if self._fault:
                raise SystemExit(f"Stopped: {self._fault}")
        elif job.suspect:
            self._settle()  # it shall not take others along
            self._start(job.jobs)
            self._settle()
        else:
            self._start(job.jobs)
            self._settle(len(self._in_flight) - settings().connections)

    def _start(self, jobs: list[Claimed]) -> None:
        rest = self._committers.submit(
            run, jobs, self._committers, self._claims, self.serializer, self.default_result_ttl
        )
        self._in_flight.append(_InFlight(jobs, rest))
        self._claimed = []

    def _settle(self, turns: float = math.inf, patience: float | None = None) -> None:
        """Conclude the oldest `turns` in flight once they are written, and any that already are."""
        deadline = None if patience is None else time.monotonic() + patience
        while self._in_flight and (turns > 0 or self._in_flight[0].rest.done()):
            while not wait([self._in_flight[0].rest], timeout=1).done:
                if self._stop_requested:
                    self._committers.give_up()
                    deadline = deadline or time.monotonic() + self._patience
                if deadline is not None and time.monotonic() > deadline:
                    self._release()
                    return
                self._look_around()
            self._conclude(self._in_flight[0])
            turns -= 1

    def _conclude(self, turn: _InFlight) -> None:
        try:
            rest = turn.rest.result()
        except GivenUp:
            self._release()
            return
        except postgres.DatabaseFault as fault:
            self._release()
            raise SystemExit(f"Stopped, with all jobs back in the queue: {fault}") from None
        except redis.RedisError:  # the rows are written: whoever takes the jobs next finishes them
            raise
        except Exception as error:  # not PostgreSQL's: some value cannot be written, or be accounted for
            self._single_out(turn, error)
            return
        for claimed, failure in rest.failed:
            self._fail(claimed, failure)
        for claimed, problem in rest.unreadable:
            self._quarantine(claimed, problem)
        for claimed, report in rest.awaited:
            self._succeed(claimed, report)
        self._ordinary += rest.ordinary
        self._in_flight.popleft()

    def _single_out(self, turn: _InFlight, error: Exception) -> None:
        """Fail the job that cannot be written; of several, find out which."""
        if len(turn.jobs) > 1:
            self._in_flight.popleft()
            for job in turn.jobs:
                self._start([job])
        else:
            self._fail(turn.jobs[0], UntrustedJob(f"the job cannot be written: {fault(error)}"))
            self._in_flight.popleft()

    def _take_ordinary(self) -> Ordinary | None:
        """The next job that is no record of outcomes, once nothing else is in flight."""
        self._settle()
        if not self._ordinary:
            return None  # given back: the worker is to stop
        claimed = self._ordinary[0]
        if ordinary := self._prepare(claimed):
            return ordinary
        self._ordinary.pop(0)
        return None

    # --- what this worker holds -------------------------------------------------------------------------

    def _release(self) -> None:
        """Give everything that is not finished back to the front of the queue."""
        members = self._members()
        self._in_flight.clear()
        self._claimed, self._ordinary = [], []
        if released := self._claims.release(members):
            logs.warning("jobs_released", jobs=released)

    def _look_around(self) -> None:
        """Every few seconds: say that this worker lives, and take over the jobs of those that do not."""
        if time.monotonic() - self._looked_around < self.timing.look_around:
            return
        members = self._members()
        self._claims.beat(members)
        released, given_up = self._claims.recover(members)
        if released:
            logs.warning("jobs_taken_over", jobs=released)
        if given_up:
            logs.error("jobs_given_up", jobs=given_up)
            self.last_cleaned_at = None  # maintenance is due: it moves them to the failed registry
        self._looked_around = time.monotonic()

    def _members(self) -> list[str]:
        in_flight = (claimed for turn in self._in_flight for claimed in turn.jobs)
        return [claimed.member for claimed in (*in_flight, *self._claimed, *self._ordinary)]
