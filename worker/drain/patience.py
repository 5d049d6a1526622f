"""How a draining worker waits for a Redis that is away or refuses for a while: in every call, RQ's too."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from .. import logs
from ..servers import redis_faults

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0


class Patience(Retry):
    """redis-py's policy for faults that pass: try again for `seconds`, then end the worker (SystemExit).

    Every call may be repeated: the scripts and RQ's transactions pass over what is done already, and a claim
    whose answer was lost is found again, see `Claims.recover`.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(NoBackoff(), 0, (RedisError, OSError))
        self._seconds = seconds
        #: Redis stayed away for longer. Nobody waits any more, until it answers.
        self.lost = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Patience":
        """The same: each connection copies its policy, and all have to know when Redis is lost."""
        return self

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Call `do` until Redis answers; `fail` after each failure, and what it raises ends the tries."""
        deadline = time.monotonic() + self._seconds
        for failures, pause in enumerate(_pauses(), 1):
            try:
                answer = do()
            except self._supported_errors as error:
                fault = redis_faults.judge(error)
                if not fault.passes or (is_retryable and not is_retryable(error)):
                    raise
                fail(error, failures) if with_failure_count else fail(error)
                self.lost = self.lost or time.monotonic() > deadline
                if self.lost:
                    raise SystemExit(f"Stopped: no Redis for {self._seconds:.0f} s. {fault}") from None
                logs.warning("redis_unavailable", problem=str(fault), retry_in=pause)
            else:
                self.lost = False
                return answer
            time.sleep(pause)
        raise AssertionError("the pauses never end")


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
