"""What workers of both kinds count: what the log and the summaries say, and after a kill never less."""

from collections import Counter
from collections.abc import Callable
from threading import Thread
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job

from tests import make
from tests.drain.conftest import JOB, Drain, Work, enqueue_many, rows, statuses, until
from worker.demo import sample
from worker.drain import DrainWorker
from worker.drain.claimed import Done
from worker.drain.claims import Claims, Timing
from worker.record import counters
from worker.record.numbers import LAG, TURN
from worker.record.prune import FATES

Logged = Callable[[], list[dict[str, Any]]]


def counted(redis: Redis) -> Counter[str]:
    return +Counter(counters.read(redis))


def enqueue(queue: Queue, events: list[dict[str, Any]], size: int = 3) -> list[Job]:
    return [queue.enqueue(JOB, events[at : at + size]) for at in range(0, len(events), size)]


def apns(app: sample.App, number: int, **changes: Any) -> dict[str, Any]:
    answer = {"token": f"{number:064x}", **changes}
    return make.event(app, number, delivery_channel="apns", results=[answer])


@pytest.fixture
def mixed(app: sample.App, connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Events of each kind; of the dead tokens one can go, one registered again, and one is absent."""
    insert = "insert into public.device_tokens values (%s, %s, %s)"
    connection.execute(insert, ["token-1", app.users[1], "2026-01-01Z"])
    connection.execute(insert, ["token-2", app.users[2], "2026-11-20Z"])
    return [
        make.event(app, 0),
        *(make.event(app, n, results=[make.unregistered(f"token-{n}")]) for n in (1, 2, 3)),
        make.event(app, 4, results=[make.result("a", http_status=503, body=None), make.result("b")]),
        make.event(app, 5, results=[], skipped="quiet_hours"),
        apns(app, 6, http_status=200),
        apns(app, 7, http_status=400, body={"reason": "BadDeviceToken"}),
        make.event(app, 0),
        make.event(app, 0, results=[], skipped="quiet_hours"),
        make.event(app, 8, chapter_id="chapter-7"),
        make.event(app, 9, final=False, results=[make.result("c", http_status=429, body=None)]),
    ]


def test_everything_is_counted_by_what_became_of_it(
    redis: Redis, queue: Queue, work: Work, mixed: list[dict[str, Any]]
) -> None:
    enqueue(queue, mixed)
    work()
    found = counted(redis)
    outcomes = {
        name: number for name, number in found.items() if name.partition(":")[0] not in ("turn", "lag")
    }
    assert outcomes == {
        "outcomes:fcm:delivered": 2,
        "outcomes:fcm:failed": 3,
        "outcomes:fcm:skipped": 1,
        "outcomes:apns:delivered": 1,
        "outcomes:apns:failed": 1,
        "duplicates:agreeing": 1,
        "duplicates:conflicting": 1,
        "rejected": 1,
        "results:fcm:accepted:accepted": 3,
        "results:fcm:unregistered:proven_dead": 3,
        "results:fcm:service_unavailable:transient": 1,
        "results:fcm:rate_limited:transient": 1,
        "results:apns:accepted:accepted": 1,
        "results:apns:bad_device_token:unproven": 1,
        "tokens:fcm:pruned": 1,
        "tokens:fcm:kept": 1,
        "tokens:fcm:absent": 1,
    }


def test_the_lag_of_each_row_is_counted_and_the_time_of_each_turn(
    redis: Redis, queue: Queue, work: Work, mixed: list[dict[str, Any]], logged: Logged
) -> None:
    enqueue(queue, mixed)
    work()
    found = counted(redis)
    turns = sum(line["event"] == "outcomes_recorded" for line in logged())
    assert sum(found[name] for name in LAG.buckets) == 8
    assert sum(found[name] for name in TURN.buckets) == turns


def test_the_numbers_are_the_sums_of_the_summaries(
    redis: Redis, queue: Queue, work: Work, mixed: list[dict[str, Any]], logged: Logged
) -> None:
    enqueue(queue, mixed + mixed)
    work()
    lines = [line for line in logged() if line["event"] == "outcomes_recorded"]
    found = counted(redis)

    def total(name: str) -> int:
        return sum(int(line[name]) for line in lines)

    def sums(beginning: str, end: str = "") -> int:
        return sum(
            number for name, number in found.items() if name.startswith(beginning) and name.endswith(end)
        )

    for status in ("delivered", "failed", "skipped"):
        assert sums("outcomes:", f":{status}") == total(status)
    for fate in FATES:
        assert sums("tokens:", f":{fate}") == total(fate)
    assert sums("duplicates:") == total("duplicates")
    assert sums("duplicates:conflicting") == total("conflicting")
    assert sums("rejected") == total("rejected")


def test_the_brakes_tokens_are_withheld(redis: Redis, queue: Queue, app: sample.App, work: Work) -> None:
    enqueue(queue, [make.event(app, n, results=[make.unregistered(f"t{n}")]) for n in range(60)], size=60)
    work()
    assert counted(redis)["tokens:fcm:withheld"] == 60


def test_a_job_of_refused_events_alone_is_counted(
    redis: Redis, queue: Queue, app: sample.App, work: Work
) -> None:
    queue.enqueue(JOB, [make.event(app, 1), {}])
    work()
    found = counted(redis)
    assert (found["outcomes:fcm:delivered"], found["rejected"]) == (1, 1)


def test_a_job_that_others_wait_for_is_counted_once(
    redis: Redis, queue: Queue, app: sample.App, work: Work
) -> None:
    parent = queue.enqueue(JOB, [make.event(app, 1)])
    queue.enqueue(JOB, [make.event(app, 2)], depends_on=parent)
    work()
    assert counted(redis)["outcomes:fcm:delivered"] == 2


def test_a_row_that_waited_for_a_lock_is_counted_once(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    work: Work,
    database: str,
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DrainWorker, "timing", Timing(lease=1.5, look_around=0.5))
    insert = """insert into public.follow_up_notification_log (peer_mentor_id, chapter_id, scenario_rule_id,
      delivered_at, delivery_channel, idempotency_key, status)
      values (%s, %s, %s, now(), 'fcm', 'key-1', 'delivered')"""
    jobs = enqueue(queue, [make.event(app, n) for n in range(3)])
    with psycopg.connect(database) as holder:
        holder.execute(insert, [app.users[0], app.chapters[0], app.rules[0]])

        def let_go() -> None:
            until(lambda: rows(connection) == 2)
            holder.rollback()

        letting = Thread(target=let_go)
        letting.start()
        work()
        letting.join()
    assert statuses(jobs) == ["finished"]
    found = counted(redis)
    assert (found["outcomes:fcm:delivered"], found["results:fcm:accepted:accepted"]) == (3, 3)


def test_a_turn_asks_redis_no_more_often_than_without_numbers(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain
) -> None:
    def asked(jobs: int, first: int) -> int:
        enqueue_many(queue, app, jobs, first=first)
        redis.config_resetstat()
        drain(max_jobs=jobs)
        return int(redis.info("commandstats")["cmdstat_evalsha"]["calls"])

    asked(1, first=0)  # loads the scripts
    turn = 512
    assert (
        asked(2 * turn, first=1) - asked(turn, first=1 + 2 * turn) == 3
    )  # to claim, for the brake, to finish


# --- kills ------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """In place of the worker's end."""


def test_rows_of_a_draining_worker_that_died_before_it_counted_are_counted_by_the_next(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue_many(queue, app, 5)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Claims, "finish", die)
        with pytest.raises(Killed):
            drain()
    assert counted(redis)["outcomes:fcm:delivered"] == 0
    drain()
    found = counted(redis)
    assert (found["outcomes:fcm:delivered"], found["duplicates:agreeing"]) == (5, 0)


def test_rows_of_a_stock_worker_that_died_before_it_counted_are_counted_by_the_next(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = queue.enqueue(JOB, [make.event(app, n) for n in range(5)])
    with monkeypatch.context() as dying:
        dying.setattr("worker.record.counters.count", lambda *_: None)
        new_worker(SimpleWorker).work(burst=True)
    assert not counted(redis)
    job.number_of_retries = 1  # as RQ enqueues the job of a worker that died
    job.save()
    queue.enqueue_job(job)
    new_worker(SimpleWorker).work(burst=True)
    found = counted(redis)
    assert (found["outcomes:fcm:delivered"], found["duplicates:agreeing"]) == (5, 0)


def test_an_event_twice_in_a_job_that_is_run_again_is_still_a_duplicate(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.enqueue(JOB, [make.event(app), make.event(app)])

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Claims, "finish", die)
        with pytest.raises(Killed):
            drain()
    drain()
    found = counted(redis)
    assert (found["outcomes:fcm:delivered"], found["duplicates:agreeing"]) == (1, 1)


@pytest.mark.parametrize("done", [True, False], ids=["with jobs done", "with none"])
def test_a_call_that_is_repeated_counts_once(
    redis: Redis, queue: Queue, app: sample.App, new_worker: Callable[..., Any], done: bool
) -> None:
    enqueue_many(queue, app, 2)
    worker = new_worker()
    claims = Claims(worker, worker.timing)
    jobs = [Done(job, 500, "") for job in claims.claim(10).jobs] if done else []
    script, calls = claims._finish, 0

    def lost_answer(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        script(*arguments)
        return script(*arguments)

    claims._finish = lost_answer  # type: ignore[assignment]
    claims.finish(jobs, 0.0, 0.0, {"rejected": 7})
    assert (calls, counted(redis)) == (1, {"rejected": 7})


def test_what_another_worker_took_over_is_not_counted(
    redis: Redis, queue: Queue, app: sample.App, new_worker: Callable[..., Any]
) -> None:
    enqueue_many(queue, app, 2)
    worker = new_worker()
    claims = Claims(worker, worker.timing)
    jobs = claims.claim(10).jobs
    redis.delete("rq:wip:notiflog")
    claims.finish([Done(job, 500, "") for job in jobs], 0.0, 0.0, {"rejected": 7})
    assert not counted(redis)


def test_postgresqls_faults_are_counted_also_by_a_worker_that_ends_of_them(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, connection: psycopg.Connection
) -> None:
    enqueue_many(queue, app, 1)
    connection.execute(
        "create rule nothing as on insert to public.follow_up_notification_log do instead nothing"
    )
    with pytest.raises(SystemExit):
        drain()
    assert counted(redis)["faults:other"] == 1
