"""RQ's scheduler (`rq worker --with-scheduler`), which no job that somebody scheduled can end."""

import time
from typing import Any

from rq.scheduler import RQScheduler

from ..queue.keys import shared_kinds
from ..queue.scripts import mend
from .trusted import TrustedQueue

# RQ enqueues this many at once.
_CHUNK = 1000


class TrustedScheduler(RQScheduler):  # type: ignore[misc]
    """RQ's scheduler, setting jobs aside that it cannot read, and ending without a traceback."""

    def enqueue_scheduled_jobs(self) -> None:
        """Enqueue the jobs whose time has come."""
        for name in self._acquired_locks:
            mend(self.connection, shared_kinds(name))
            queue = TrustedQueue(name, connection=self.connection, serializer=self.serializer)
            registry = queue.scheduled_job_registry.key
            due = self.connection.zrangebyscore(registry, 0, time.time(), start=0, num=_CHUNK)
            queue.set_aside_unreadable(due)
        super().enqueue_scheduled_jobs()

    def work(self) -> None:
        """Schedule until told to stop."""
        try:
            super().work()
        except Exception:
            self.log.exception("Scheduler %s: ended; a worker starts another within minutes", self.name)
            raise SystemExit(1) from None

    def work_once(self) -> None:
        """Enqueue what is due, for a worker in burst mode."""
        try:
            self.register_birth()
            self.enqueue_scheduled_jobs()
        except Exception:
            self.log.exception("Scheduler %s: scheduled jobs wait", self.name)
        finally:
            self.release_locks()
            self.register_death()


def start(
    worker: Any, burst: bool, logging_level: str | None, date_format: str, log_format: str
) -> TrustedScheduler:
    """A scheduler of a worker's queue, if no other has it: in a process of its own, or in burst mode once."""
    scheduler = TrustedScheduler(
        worker.queues,
        connection=worker.connection,
        logging_level=worker.log.level if logging_level is None else logging_level,
        date_format=date_format,
        log_format=log_format,
        serializer=worker.serializer,
    )
    if scheduler.acquire_locks():
        scheduler.work_once() if burst else scheduler.start()
    return scheduler
