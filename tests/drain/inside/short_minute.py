"""RQ's hard-coded minute, shortened: how long a dead stock worker's job is left alone."""

from datetime import timedelta
from typing import Any

from rq.intermediate_queue import IntermediateQueue
from rq.utils import now
from rq.worker import BaseWorker


def set_to(seconds: int) -> None:
    """Count a started job as abandoned, and one in the intermediate queue as stuck, after `seconds`.

    The worker's `--job-monitoring-interval`, at which it says that it lives, must be shorter.
    """

    def get_heartbeat_ttl(self: Any, job: Any, working_time: float = 0.0) -> int:
        return seconds

    def should_be_cleaned_up(self: Any, job_id: str) -> bool:
        seen = self.get_first_seen(job_id)
        return bool(seen and now() - seen > timedelta(seconds=seconds))

    BaseWorker.get_heartbeat_ttl = get_heartbeat_ttl
    IntermediateQueue.should_be_cleaned_up = should_be_cleaned_up
