"""Notices for the app: what is enqueued, what finds no room, and that nobody waits for it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from redis import ConnectionError, Redis
from rq import Queue
from rq.job import Job

from worker.queue import notices
from worker.queue.notices import Outbox, send, send_at_once

Logged = Callable[[], list[dict[str, Any]]]
FUNCTION = "app.push.on_notices"


def some(n: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"notice": "token_pruned", "token": f"{number}"} for number in range(first, first + n)]


def waiting(redis: Redis) -> list[Job]:
    found: list[Job] = Queue(notices.QUEUE, connection=redis).jobs
    return found


def sent(redis: Redis) -> list[str]:
    return [one["token"] for job in waiting(redis) for one in job.args[0]]


def lost(logged: Logged) -> list[int]:
    return [line["notices"] for line in logged() if line["event"] == "notices_lost"]


def test_a_job_calls_the_function_with_a_list_of_notices_and_is_not_kept_for_long(redis: Redis) -> None:
    assert send(redis, FUNCTION, some(1)) == 0
    (job,) = waiting(redis)
    assert (job.func_name, job.args, job.kwargs) == (FUNCTION, (some(1),), {})
    assert (job.ttl, job.result_ttl, job.failure_ttl) == (86_400, 0, 86_400)
    assert job.description == "notices: 1"


def test_many_notices_are_several_jobs_in_order(redis: Redis) -> None:
    send(redis, FUNCTION, some(notices.PER_JOB + 1))
    assert [len(job.args[0]) for job in waiting(redis)] == [notices.PER_JOB, 1]
    assert sent(redis) == [f"{number}" for number in range(notices.PER_JOB + 1)]


def test_what_finds_the_queue_full_is_lost_and_counted(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(notices, "MOST_JOBS", 2)
    send(redis, FUNCTION, some(1))
    send_at_once(redis, FUNCTION, some(notices.PER_JOB + 5))
    assert len(sent(redis)) == 1 + notices.PER_JOB
    send_at_once(redis, FUNCTION, some(3))
    assert lost(logged) == [5, 3]


def test_without_redis_they_are_lost_and_counted_at_once(logged: Logged) -> None:
    send_at_once(Redis(port=1), FUNCTION, some(3))
    assert lost(logged) == [3]


def test_an_outbox_sends_all_before_it_is_closed(redis: Redis, logged: Logged) -> None:
    outbox = Outbox(redis, FUNCTION)
    for number in range(50):
        outbox.put(some(1, number))
    outbox.close()
    assert sent(redis) == [f"{number}" for number in range(50)]
    assert lost(logged) == []


class Gate:
    """Stands in for `send`: holds whoever comes, or refuses, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuses: bool = False) -> None:
        self.open = threading.Event()
        self.came = threading.Event()
        self._refuses = refuses
        monkeypatch.setattr(notices, "send", self._send)

    def _send(self, redis: Redis, function: str, them: list[dict[str, Any]]) -> int:
        self.came.set()
        if self._refuses and not self.open.is_set():
            raise ConnectionError
        self.open.wait(30)
        return send(redis, function, them)


def test_while_redis_hangs_whoever_has_notices_does_not_wait_and_the_rest_is_counted(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    gate = Gate(monkeypatch)
    monkeypatch.setattr(notices, "_MOST_WAITING", 10)
    outbox = Outbox(redis, FUNCTION)
    outbox.put(some(1))
    assert gate.came.wait(30)
    outbox.put(some(10, 1))
    outbox.put(some(7, 11))
    gate.open.set()
    outbox.close()
    assert len(sent(redis)) == 11
    assert lost(logged) == [7]


def test_what_redis_refused_is_sent_again_in_order(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    gate = Gate(monkeypatch, refuses=True)
    monkeypatch.setattr(notices, "_PAUSE", 0.01)
    outbox = Outbox(redis, FUNCTION)
    outbox.put(some(5))
    assert gate.came.wait(30)
    outbox.put(some(5, 5))
    gate.open.set()
    outbox.close()
    assert (sent(redis), lost(logged)) == ([f"{number}" for number in range(10)], [])


@pytest.mark.parametrize("refuses", [True, False])
def test_closing_does_not_wait_for_redis_and_counts_what_is_left(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, logged: Logged, refuses: bool
) -> None:
    gate = Gate(monkeypatch, refuses=refuses)
    monkeypatch.setattr(notices, "_LAST", 0.2)
    outbox = Outbox(redis, FUNCTION)
    outbox.put(some(1))
    assert gate.came.wait(30)
    outbox.put(some(4, 1))
    outbox.close()
    assert lost(logged) == [5]
    gate.open.set()
    outbox._thread.join(30)


def test_an_error_of_rq_s_ends_no_outbox(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    def broken(*_: Any) -> int:
        raise TypeError

    monkeypatch.setattr(notices, "send", broken)
    outbox = Outbox(redis, FUNCTION)
    outbox.put(some(2))
    while not lost(logged):
        pass
    monkeypatch.setattr(notices, "send", send)
    outbox.put(some(1))
    outbox.close()
    assert (lost(logged), sent(redis)) == ([2], ["0"])
