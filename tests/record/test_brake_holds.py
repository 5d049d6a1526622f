"""The brake in a job: tokens stay while it holds, rows are written all the same, and nothing is lost."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, Work, drain, new_worker, queue, rows, statuses, work
from worker.demo import sample
from worker.record import brake, store

__all__ = ["drain", "new_worker", "queue", "work"]

Logged = Callable[[], list[dict[str, Any]]]


def tokens(connection: psycopg.Connection) -> int:
    (n,) = connection.execute("select count(*) from public.device_tokens").fetchone() or (0,)
    return int(n)


@pytest.fixture
def devices(connection: psycopg.Connection, app: sample.App) -> None:
    connection.execute(
        "insert into public.device_tokens "
        "select 'token-' || n, %s, '2026-11-01T00:00:00Z' from generate_series(0, 59) as n",
        [app.users[0]],
    )


def dead(app: sample.App, first: int, n: int, window: str = "") -> list[dict[str, Any]]:
    """Events whose every device is gone, FCM says."""
    return [
        make.event(
            app,
            number,
            results=[make.unregistered(f"token-{number}")],
            idempotency_key=f"key-{window}{number}",
        )
        for number in range(first, first + n)
    ]


@pytest.mark.usefixtures("devices")
class TestMassDeath:
    def test_rows_are_recorded_and_tokens_kept_until_it_is_over(
        self,
        work: Work,
        queue: Queue,
        redis: Redis,
        connection: psycopg.Connection,
        app: sample.App,
        logged: Logged,
    ) -> None:
        jobs = [queue.enqueue(JOB, dead(app, 0, 60))]
        work()
        assert (statuses(jobs), rows(connection), tokens(connection)) == (["finished"], 60, 60)
        (summary,) = [line for line in logged() if line["event"] == "outcomes_recorded"]
        assert (summary["withheld"], summary["pruned"], summary["failed"]) == (60, 0, 60)
        assert [line["dead"] for line in logged() if line["event"] == "brake_on"] == [60]

        redis.delete(*redis.scan_iter(f"{brake.key('sends')}:*"))  # a week later, say
        queue.enqueue(JOB, dead(app, 0, 40, window="next-"))
        work()
        assert (rows(connection), tokens(connection)) == (100, 20)

    def test_it_is_shared_by_all_workers(
        self, work: Work, queue: Queue, redis: Redis, connection: psycopg.Connection, app: sample.App
    ) -> None:
        minute = redis.time()[0] // 60
        redis.hset(f"{brake.key('sends')}:minute:{minute}", "fcm:dead", "100")
        queue.enqueue(JOB, dead(app, 0, 1))
        work()
        assert (rows(connection), tokens(connection)) == (1, 60)

    def test_another_channel_is_pruned_as_ever(
        self, work: Work, queue: Queue, connection: psycopg.Connection, app: sample.App
    ) -> None:
        gone = make.result(
            "token-59", http_status=410, body={"reason": "Unregistered"}, delivery_channel="apns"
        )
        queue.enqueue(JOB, [*dead(app, 0, 55), make.event(app, 59, results=[gone])])
        work()
        assert (rows(connection), tokens(connection)) == (56, 59)

    def test_a_turn_counts_once_however_often_its_rows_are_written(
        self,
        work: Work,
        queue: Queue,
        redis: Redis,
        connection: psycopg.Connection,
        app: sample.App,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        real, faults = store.write, [psycopg.OperationalError("gone")] * 2

        def write(*args: Any) -> store.Recorded:
            if faults:
                raise faults.pop()
            return real(*args)

        monkeypatch.setattr(store, "write", write)
        queue.enqueue(JOB, dead(app, 0, 30))
        work()
        assert brake.recent(redis, "sends")["fcm"].dead == 30
        assert (rows(connection), tokens(connection)) == (30, 30)

    def test_a_fault_of_redis_costs_neither_rows_nor_tokens(
        self,
        work: Work,
        queue: Queue,
        connection: psycopg.Connection,
        app: sample.App,
        redis: Redis,
        logged: Logged,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(brake, "_SCRIPT", "return redis.error_reply('ERR fault')")
        queue.enqueue(JOB, dead(app, 0, 2))
        work()
        assert (rows(connection), tokens(connection)) == (2, 60)
        assert "brake_blind" in [line["event"] for line in logged()]
