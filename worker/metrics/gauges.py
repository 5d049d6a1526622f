"""What the servers are like now, each asked within time limits: values by metric and labels."""

import os
from collections import Counter
from contextlib import closing, suppress
from typing import get_args

import psycopg
from psycopg.conninfo import make_conninfo
from redis import Redis

from ..queue.causes import REASONS
from ..queue.census import census
from ..queue.lost import find_lost
from ..queue.stopped import stopped_jobs
from ..record import brake, counters, reservations
from ..servers import postgres
from ..servers.migrations import ledgers_are_closed, pending
from ..servers.redis import client
from ..servers.settings import read_settings

#: Values by a metric's name and the values of its labels.
Values = dict[tuple[str, ...], float]

#: Seconds for which what takes long to find out is good enough.
KEEP = 60.0
# Seconds that a look for lost jobs may take; then only what it found is told.
_LOOK = 20.0
# Seconds to wait for a connection to PostgreSQL.
_PATIENCE = 5


class OfRedis:
    """What is to be asked of the Redis of the environment, about one queue. Raises BadAddress."""

    def __init__(self, queue: str) -> None:
        self._redis: Redis = client(os.environ)
        self._queue = queue

    def numbers(self) -> dict[str, int]:
        """What the workers counted, by the names of `record.numbers`."""
        return counters.read(self._redis)

    def state(self) -> Values:
        """The queue, its workers and the brake; quick, however many jobs there are."""
        queue, seen = self._queue, census(self._redis, self._queue)
        values: Values = {
            ("notiflog_jobs", queue, "waiting"): seen.waiting,
            ("notiflog_jobs", queue, "started"): seen.started,
            ("notiflog_jobs", queue, "failed"): seen.failed,
            ("notiflog_jobs", queue, "quarantined"): seen.quarantined,
            ("notiflog_workers", queue, "alive"): sum(worker.fresh for worker in seen.workers),
            ("notiflog_workers", queue, "silent"): sum(not worker.fresh for worker in seen.workers),
            ("notiflog_suspended",): seen.suspended,
        }
        if seen.oldest is not None or not seen.waiting:
            values["notiflog_oldest_job_seconds", queue] = seen.oldest or 0
        for source in get_args(brake.Source):
            for channel, (alive, dead, *_) in brake.recent(self._redis, source).items():
                values["notiflog_brake_on", channel, source] = brake.is_on(alive, dead)
        return values

    def stopped(self) -> Values:
        """Why jobs stopped; takes long where thousands did."""
        found = Counter(job.reason for job in stopped_jobs(self._redis, self._queue, count_events=False))
        reasons = [reason for reason in REASONS if reason != "lost"]
        return {("notiflog_stopped_jobs", self._queue, reason): found[reason] for reason in reasons}

    def lost(self) -> Values:
        """The jobs that stand nowhere; looks through every key."""
        found = find_lost(self._redis, self._queue, _LOOK)
        return {("notiflog_lost_jobs", self._queue): len(found.ids)} if found.ids or found.share == 1 else {}


def of_postgres() -> Values:
    """The reservations and migrations, as far as the role of DATABASE_URL may look. Raises psycopg.Error."""
    url = make_conninfo(read_settings(os.environ).database_url, connect_timeout=_PATIENCE)
    values: Values = {}
    with closing(postgres.connect(url)) as connection:
        connection.execute("select 1")  # a pooler answers before it has a server
        with suppress(psycopg.DatabaseError):
            prompts, age = reservations.missing(connection)
            values["notiflog_outstanding_prompts",] = prompts
            values["notiflog_outstanding_oldest_seconds",] = age
        with suppress(psycopg.DatabaseError):
            if not ledgers_are_closed(connection):
                values["notiflog_migrations_pending",] = len(pending(connection))
    return values
