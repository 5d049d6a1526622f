"""What one worker holds: jobs that are claimed, being written, or waiting for RQ's ordinary path."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from typing import NamedTuple

import redis

from .. import logs
from ..queue.plain import UntrustedJob
from ..servers import postgres
from .claimed import Claimed, Member, Returned, Turn
from .claims import Claims
from .ordinary import Ordinary, OrdinaryPath
from .turn import Unfinished, where
from .writers import GivenUp, Stopped


class _InFlight(NamedTuple):
    """A turn that is being judged and written."""

    jobs: list[Claimed]
    unfinished: "Future[Unfinished]"


class InHand:
    """A worker's jobs between claim and end; it gives back what it does not bring to an end.

    `write`: starts to judge and write some jobs. `interrupt`: has that raise Stopped soon, if it goes on.
    `moved`: called again and again, however long anything takes. `stopping`: whether the worker is to stop.
    `given_up`: called when jobs came back too often. `dependents_ready`: called when RQ left some behind.
    """

    def __init__(
        self,
        claims: Claims,
        path: OrdinaryPath,
        write: "Callable[[list[Claimed]], Future[Unfinished]]",
        *,
        interrupt: "Callable[[Future[Unfinished]], bool]",
        moved: Callable[[], None],
        stopping: Callable[[], bool],
        given_up: Callable[[], None],
        dependents_ready: Callable[[], None],
    ) -> None:
        self._claims = claims
        self._path = path
        self._write = write
        self._interrupt = interrupt
        self._moved = moved
        self._stopping = stopping
        self._given_up = given_up
        self._dependents_ready = dependents_ready
        self._claimed: list[Claimed] = []  # not in flight yet
        self._in_flight: deque[_InFlight] = deque()
        self._ordinary: list[Claimed] = []  # for RQ's ordinary path
        self._waiting: list[Claimed] = []  # for somebody's lock, to be tried again with the next look around
        self._stopped: set[str] = set()  # ids of jobs that somebody stopped
        self._wait_until = float("inf")
        self._looked_around = float("-inf")

    @property
    def busy(self) -> bool:
        """Some turn is being written, or will be."""
        return bool(self._in_flight or self._waiting)

    @property
    def ordinary(self) -> bool:
        """Some job waits for RQ's ordinary path."""
        return bool(self._ordinary)

    # --- from the queue to PostgreSQL ----------------------------------------------------------------------

    def claim(self, most: int) -> Turn:
        """Claim up to `most` jobs."""
        turn = self._claims.claim(most)
        if turn.ordinary:
            self._ordinary = turn.jobs
        else:
            self._claimed = turn.jobs
        return turn

    def start(self, jobs: list[Claimed]) -> None:
        """Have claimed jobs judged and written, side by side with others."""
        self._in_flight.append(_InFlight(jobs, self._write(jobs)))
        self._claimed = []

    def next_ordinary(self) -> Ordinary | None:
        """The next job for RQ's ordinary path, once nothing else is in flight; None: it could not be."""
        self.settle_all()
        if not self._ordinary:
            return None  # given back: the worker is to stop
        if ordinary := self._path.prepare(self._ordinary[0]):
            return ordinary
        self.forget_ordinary()
        return None

    def forget_ordinary(self) -> None:
        """The job that came last from `next_ordinary` is over."""
        self._ordinary.pop(0)

    # --- conclude what is written --------------------------------------------------------------------------

    def settle_all(self) -> None:
        """Wait until every turn is written, and conclude it."""
        self.settle_to(0)

    def settle_to(self, most: int) -> None:
        """Wait until `most` turns are in flight at most. The oldest come first."""
        while len(self._in_flight) > most and self._is_written(self._in_flight[0]):
            self._conclude(self._in_flight[0])
        self.settle_done()

    def settle_done(self) -> None:
        """Conclude the oldest turns that are written already; waits for none."""
        while self._in_flight and self._in_flight[0].unfinished.done():
            self._conclude(self._in_flight[0])

    def settle_some(self, seconds: float) -> None:
        """Wait for the oldest turn, `seconds` at most: jobs may come before it is written."""
        if self._in_flight:
            wait([self._in_flight[0].unfinished], timeout=seconds)
        else:
            time.sleep(seconds)
        self.settle_done()

    def stop_waiting(self, seconds: float) -> None:
        """Give back what is not written `seconds` from now."""
        self._wait_until = min(self._wait_until, time.monotonic() + seconds)

    def _is_written(self, turn: _InFlight) -> bool:
        """Wait for a turn. False: it takes too long for a worker that is to stop, all is given back."""
        while not wait([turn.unfinished], timeout=1).done:
            if self._stopping():
                self.stop_waiting(self._claims.timing.last_writes)
            if time.monotonic() > self._wait_until:
                self.release()
                return False
            self.look_around()
        return True

    def _conclude(self, turn: _InFlight) -> None:
        try:
            unfinished = turn.unfinished.result()
        except GivenUp:
            self.release()
            return
        except Stopped:
            self._in_flight.popleft()
            self._start_again(turn.jobs)
            return
        except postgres.DatabaseFault as fault:
            self.release()
            raise SystemExit(f"Stopped, with all jobs back in the queue: {fault}") from None
        except redis.RedisError:  # the rows are written: whoever takes the jobs next finishes them
            raise
        except Exception as error:  # not PostgreSQL's: some value cannot be written, or be accounted for
            self._single_out(turn, error)
            return
        self._finish(unfinished)
        self._in_flight.popleft()

    def _finish(self, unfinished: Unfinished) -> None:
        """Leave to RQ what a written turn could not finish."""
        for claimed, error in unfinished.failed:
            self._path.fail(claimed, error)
        for claimed, problem in unfinished.unreadable:
            self._path.set_aside(claimed, problem)
        for claimed, report in unfinished.awaited:
            self._path.succeed(claimed, report)
        self._ordinary += unfinished.ordinary
        self._waiting += [claimed._replace(waited=True) for claimed in unfinished.waiting]
        if self._stopped:  # hardly ever: not worth a look at all jobs after each turn
            self._stopped &= {job.job_id for job in self._started()}

    def _single_out(self, turn: _InFlight, error: Exception) -> None:
        """Fail the job that cannot be written; of several, find out which."""
        if len(turn.jobs) > 1:
            self._in_flight.popleft()
            for job in _counted(turn.jobs):
                self.start([job])
        else:
            self._path.fail(turn.jobs[0], UntrustedJob(f"the job cannot be written: {where(error)}"))
            self._in_flight.popleft()

    def stop(self, job_id: str) -> bool:
        """Have a job that is being recorded fail as stopped; False: none of this id is. For other threads."""
        turns = [turn for turn in list(self._in_flight) if job_id in {job.job_id for job in turn.jobs}]
        if not turns and job_id not in {job.job_id for job in list(self._waiting)}:
            return False
        self._stopped.add(job_id)
        return all(self._interrupt(turn.unfinished) for turn in turns)

    def _start_again(self, jobs: list[Claimed]) -> None:
        """Have jobs written that were tried before, but for those that somebody stopped."""
        for claimed in jobs:
            if claimed.job_id in self._stopped:
                self._path.stop(claimed)
        if rest := [claimed for claimed in jobs if claimed.job_id not in self._stopped]:
            self._in_flight.append(_InFlight(rest, self._write(list(_counted(rest)))))
        self._stopped -= {claimed.job_id for claimed in jobs}

    # --- the lease -----------------------------------------------------------------------------------------

    def look_around(self) -> None:
        """Every few seconds: say that this worker lives, and take over the jobs of those that do not."""
        self._moved()
        if time.monotonic() - self._looked_around < self._claims.timing.look_around:
            return
        members = _members([*self._started(), *self._not_started()])
        ready = self._claims.beat(members)
        returned = self._claims.recover(members)
        if returned.queued:
            logs.warning("jobs_taken_over", jobs=returned.queued)
        self._tell_of_given_up(returned)
        if ready:
            self._dependents_ready()
        if waiting := self._waiting:
            self._waiting = []
            self._start_again(waiting)
        self._looked_around = time.monotonic()

    def release(self, *, suspect: bool = False) -> None:
        """Give everything that is not finished back to the front of the queue.

        `suspect`: some job may be what ends this worker; one that comes back so too often fails.
        """
        started, not_started = _members(self._started()), _members(self._not_started())
        self._in_flight.clear()
        self._claimed, self._ordinary, self._waiting = [], [], []
        behind = self._claims.release(not_started, suspect=suspect)
        before = self._claims.release(started, counted=True, suspect=suspect)
        if released := before.queued + behind.queued:
            logs.warning("jobs_released", jobs=released)
        self._tell_of_given_up(Returned(released, before.given_up + behind.given_up))

    def _tell_of_given_up(self, returned: Returned) -> None:
        if returned.given_up:
            logs.error("jobs_given_up", jobs=returned.given_up)
            self._given_up()

    def _started(self) -> list[Claimed]:
        return [*(claimed for turn in self._in_flight for claimed in turn.jobs), *self._waiting]

    def _not_started(self) -> list[Claimed]:
        return [*self._claimed, *self._ordinary]


def _members(jobs: Iterable[Claimed]) -> list[Member]:
    return [claimed.member for claimed in jobs]


def _counted(jobs: Iterable[Claimed]) -> list[Claimed]:
    """Jobs of a turn that will be written again: the brake counts answers once."""
    return [claimed._replace(counted=True) for claimed in jobs]
