"""The same work as messages of other libraries: a kept connection, one commit for each message."""

import os
import threading
from typing import Any

import dramatiq
import psycopg
from celery import Celery
from dramatiq.brokers.redis import RedisBroker
from rq import SimpleWorker

from worker.judge.batch import judge
from worker.record import recording
from worker.record.tokens import Tokens
from worker.servers.postgres import connect
from worker.servers.settings import settings

_kept = threading.local()
_redis_url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")


def record(events: list[dict[str, Any]]) -> None:
    """Judge and record one message's events on this thread's kept connection."""
    connection: psycopg.Connection | None = getattr(_kept, "connection", None)
    if connection is None:
        connection = _kept.connection = connect(settings().database_url)
    recording.record(connection, Tokens(settings()), [judge(events)])


class KeptConnectionWorker(SimpleWorker):  # type: ignore[misc]
    """RQ without forking: what one would write first to go faster."""


celery_app = Celery("peers", broker=_redis_url.replace("unix://", "redis+socket://"))
celery_app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
celery_record = celery_app.task(record, name="record")

dramatiq_broker = RedisBroker(url=_redis_url, middleware=[dramatiq.middleware.Retries()])
dramatiq.set_broker(dramatiq_broker)
dramatiq_record = dramatiq.actor(record, actor_name="record")
