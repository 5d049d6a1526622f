"""Celery: prefork; a message is acknowledged once its job has ended, and no result is kept."""

from collections.abc import Sequence

from celery import Celery

from .work import REDIS_URL, Events, Servers, record

COMMAND = ("celery", "-A", "tests.benchmarks.peers.celery:app", "worker", "-l", "ERROR", "-c", "1")

app = Celery("peers", broker=REDIS_URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
_task = app.task(record, name="record")


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """One by one, on one connection."""
    with app.connection_for_write(servers.redis_url) as connection:
        for events in jobs:
            _task.apply_async([events], connection=connection)
