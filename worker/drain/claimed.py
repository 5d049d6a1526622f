"""What a draining worker claims and what becomes of it, in plain values."""

from typing import NamedTuple

from ..judge.batch import Past

_HOLDER_LENGTH = 32  # hex digits of a UUID


class Member(bytes):
    """A job's entry in RQ's started registry: `<job id>:<execution id>`.

    The execution id of a draining worker's job is `<holder>-<turn>-<number>`, so that the registry alone
    tells whose it is. Anybody can put anything there, so every part may be odd.
    """

    @property
    def holder(self) -> str | None:
        """The worker that claimed the job; None: no draining worker did."""
        holder, dash, _ = self.rpartition(b":")[2].partition(b"-")
        return holder.decode(errors="replace") if dash and len(holder) == _HOLDER_LENGTH else None


class Claimed(NamedTuple):
    """One job of a turn."""

    job_id: str
    execution_id: str
    #: The call, as RQ stores it.
    data: bytes
    #: Seconds to keep the result, as stored; None or empty: the job does not say.
    result_ttl: bytes | None
    #: Taken over from a worker that died, maybe of it.
    recovered: bool
    #: The brake has counted its answers: it was in flight before.
    counted: bool
    #: This worker wrote it before, and some of its rows waited for somebody's lock.
    waited: bool = False

    @property
    def past(self) -> Past:
        """What it has been through."""
        if self.waited:
            return Past.WRITTEN
        return Past.UNKNOWN if self.counted else Past.NONE

    @property
    def member(self) -> Member:
        """The job's entry in the started registry."""
        return Member(f"{self.job_id}:{self.execution_id}".encode())


class Turn(NamedTuple):
    """What a claim brought."""

    jobs: list[Claimed]
    #: How many jobs left the queue: also those that were gone or set aside.
    taken: int
    #: Its one job needs RQ's ordinary path.
    ordinary: bool
    #: Workers are suspended: nothing was claimed.
    suspended: bool

    @property
    def suspect(self) -> bool:
        """Its one job may be what killed its worker."""
        return any(job.recovered for job in self.jobs)


class Done(NamedTuple):
    """One committed job, to be finished."""

    job: Claimed
    #: Seconds to keep the result; 0 not at all, -1 for ever.
    result_ttl: int
    #: Serialized and encoded as RQ does.
    result: str


class Returned(NamedTuple):
    """How many jobs came back from a worker."""

    queued: int
    #: Too often already: RQ's maintenance will fail them.
    given_up: int
