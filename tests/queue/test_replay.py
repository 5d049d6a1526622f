"""`python -m worker.replay`: what it says, puts back and never loses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, Retry, Worker
from rq.job import Job

from tests import make
from tests.drain.conftest import (
    FAILED,
    JOB,
    QUARANTINE,
    QUEUE,
    STARTED,
    Drain,
    Start,
    Work,
    call,
    drain,
    environment,
    new_worker,
    queue,
    start,
    statuses,
    until,
    work,
)
from tests.queue.test_stopped import REJECTED, fail, set_aside
from worker.demo import sample
from worker.drain import DrainWorker
from worker.queue import repair
from worker.replay import __main__ as replay

__all__ = ["drain", "environment", "new_worker", "queue", "start", "work"]

pytestmark = pytest.mark.usefixtures("address")


@pytest.fixture
def address(valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


def places(redis: Any) -> dict[str, list[str]]:
    """Which job is where."""
    return {
        "queued": [job_id.decode() for job_id in redis.lrange(QUEUE, 0, -1)],
        "failed": [job_id.decode() for job_id in redis.zrange(FAILED, 0, -1)],
        "set aside": [job_id.decode() for job_id in redis.lrange(QUARANTINE, 0, -1)],
    }


def everything(redis: Any) -> dict[bytes, Any]:
    return {key: redis.dump(key) for key in redis.scan_iter()}


def fields(redis: Any, job_id: str = "job") -> dict[str, str]:
    stored = redis.hgetall(f"rq:job:{job_id}")
    return {name.decode(): value.decode() for name, value in stored.items() if name != b"data"}


def log_rows(connection: psycopg.Connection) -> dict[str, Any]:
    """When each key was recorded."""
    return dict(
        connection.execute(
            "select idempotency_key, created_at from public.follow_up_notification_log"
        ).fetchall()
    )


# --- what a replay does ------------------------------------------------------------------------------------


def test_it_only_adds_what_was_missing(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    late = make.stranger()
    events = [make.event(app, number) for number in range(5)]
    events[1]["chapter_id"] = late
    events[3]["attempted_at"] = "yesterday"
    job = queue.enqueue(JOB, events)
    work()
    first = log_rows(connection)
    assert (set(first), statuses([job])) == ({"key-0", "key-2", "key-4"}, ["failed"])

    connection.execute("insert into public.chapters values (%s)", [late])
    assert replay.main(["--reason", "rejected"]) == 0
    work()

    then = log_rows(connection)
    added = then.pop("key-1")
    assert then == first
    assert added > max(first.values())
    assert job.latest_result().exc_string.rstrip().splitlines()[-2:] == [
        f"worker.jobs.RejectedEvents: {REJECTED.replace('2', '1', 1)}",
        "[3] $.attempted_at: expected an RFC 3339 time with an offset",
    ]
    assert places(redis) == {"queued": [], "failed": [job.id], "set aside": []}


def test_a_job_that_succeeds_is_out_of_the_failed_registry(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    late = make.stranger()
    job = queue.enqueue(JOB, [make.event(app, chapter_id=late)])
    work()
    connection.execute("insert into public.chapters values (%s)", [late])
    assert replay.main(["--all"]) == 0
    work()
    assert (statuses([job]), places(redis)["failed"], redis.zcard(STARTED)) == (["finished"], [], 0)
    assert len(log_rows(connection)) == 1


def test_replayed_jobs_go_to_the_end_of_the_queue_in_the_order_in_which_they_stopped(
    redis: Redis, queue: Queue
) -> None:
    waiting = queue.enqueue(JOB, [])
    for number in range(3):
        fail(redis, f"failed-{number}")
        set_aside(redis, f"aside-{number}")
    assert replay.main(["--all"]) == 0
    order = [f"{state}-{number}" for state in ("failed", "aside") for number in range(3)]
    assert places(redis) == {"queued": [waiting.id, *order], "failed": [], "set aside": []}


@pytest.mark.usefixtures("new_worker")
def test_another_queues_jobs_go_back_to_that_queue(redis: Redis, app: sample.App) -> None:
    outcomes = Queue("outcomes", connection=redis)
    job = outcomes.enqueue(JOB, [make.event(app, chapter_id=make.stranger())])
    DrainWorker([outcomes], connection=redis).work(burst=True)
    assert replay.main(["--queue", "outcomes", "--all"]) == 0
    assert (outcomes.job_ids, outcomes.failed_job_registry.count) == ([job.id], 0)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--all"], ["--all", "--dry-run"], ["some-id"]])
def test_a_queue_that_is_not_there_is_a_problem_with_those_that_are(
    redis: Redis, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    Queue("outcomes", connection=redis).enqueue(JOB, [])
    assert replay.main(["--queue", "outcome", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "replay: no queue is called outcome: is it one of notiflog, outcomes?\n"


@pytest.mark.parametrize(
    "key", ["rq:queues", "rq:failed:mine", "rq:notiflog:quarantine:mine", "rq:workers:mine"]
)
def test_a_queue_is_there_that_left_anything_in_redis(redis: Redis, key: str) -> None:
    if "failed" in key:
        redis.zadd(key, {"job": 1})
    elif "quarantine" in key:
        redis.rpush(key, "job")
    else:
        redis.sadd(key, "rq:queue:mine")
    assert replay.main(["--queue", "mine"]) == 0


def test_nothing_of_the_last_run_counts_against_the_next(redis: Redis) -> None:
    past = "2026-11-16T06:00:00.000000Z"
    spent: dict[str, Any] = {
        "retries_left": "0",
        "number_of_retries": "7",
        "recoveries": "4",
        "exc_info": b"x",
    }
    fail(redis, "job", started_at=past, ended_at=past, enqueued_at=past, meta=b"kept", **spent)
    redis.expire("rq:job:job", 100)
    assert replay.main(["job"]) == 0
    left = fields(redis)
    assert left.pop("enqueued_at") > past
    assert left == {
        "status": "queued",
        "origin": "notiflog",
        "timeout": "180",
        "meta": "kept",
        "retries_left": "3",
    }
    assert redis.ttl("rq:job:job") == -1


def test_a_replayed_job_has_the_retries_that_its_producer_gives(redis: Redis, valkey_url: str) -> None:
    code = """if True:
        import sys
        from redis import Redis
        from worker.queue import keys
        keys.RETRIES, keys.MOST_RECOVERIES = 5, 7  # before anybody reads them
        from tests import make
        from tests.queue.test_stopped import FAILED, QUEUE
        from worker.replay import __main__ as replay
        from worker.enqueue import enqueue_outcomes
        redis = Redis.from_url(sys.argv[1])
        ids = dict.fromkeys(("peer_mentor_id", "chapter_id", "scenario_rule_id"), make.stranger())
        rest = {"idempotency_key": "key", "delivery_channel": "fcm", "attempted_at": make.SENT_AT}
        (job,) = enqueue_outcomes(redis, [{**ids, **rest}])
        given = job.retries_left
        job.retries_left = 0
        job.set_status("failed")
        job.save()
        redis.lrem(QUEUE, 1, job.id)
        redis.zadd(FAILED, {job.id: 2_000_000_000})
        replay.main(["--all"])
        job.refresh()
        print(given, job.retries_left)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, valkey_url],
        env={"PATH": os.environ["PATH"], "REDIS_URL": valkey_url},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1:] == ["5 5"], done.stderr


def test_a_job_keeps_the_time_to_live_that_its_producer_gave_it(redis: Redis) -> None:
    fail(redis, "job", ttl="1000")
    assert replay.main(["job"]) == 0
    assert 900 < redis.ttl("rq:job:job") <= 1000


@pytest.mark.parametrize("ttl", [b"9" * 400, b"-1", b"soon", b"1e5", b""])
def test_an_odd_time_to_live_loses_no_job(redis: Redis, ttl: bytes) -> None:
    fail(redis, "job", ttl=ttl)
    fail(redis, "next")
    assert replay.main(["--all"]) == 0
    assert places(redis) == {"queued": ["job", "next"], "failed": [], "set aside": []}


def test_rq_reads_a_replayed_job(redis: Redis, queue: Queue) -> None:
    job = queue.enqueue(JOB, [], retry=Retry(max=2), description="outcomes")
    redis.delete(QUEUE)
    redis.hset(job.key, "retries_left", 0)
    redis.zadd(FAILED, {job.id: 2_000_000_000})
    assert replay.main([job.id]) == 0
    read = Job.fetch(job.id, connection=redis)
    assert (read.get_status(), read.retries_left, read.args) == ("queued", 3, ([],))
    assert queue.job_ids == [job.id]


def test_a_repaired_job_comes_out_of_the_quarantine_and_runs(
    redis: Redis, app: sample.App, connection: psycopg.Connection, drain: Drain
) -> None:
    set_aside(redis, "job", call([make.event(app)]), created_at="yesterday")
    assert replay.main(["--all"]) == 1
    assert places(redis) == {"queued": [], "failed": [], "set aside": ["job"]}

    redis.hset("rq:job:job", "created_at", "2026-11-16T06:00:00Z")
    assert replay.main(["--all"]) == 0
    drain()
    assert (len(log_rows(connection)), places(redis)) == (1, {"queued": [], "failed": [], "set aside": []})


# --- what it leaves, and says ------------------------------------------------------------------------------


def test_what_is_unreadable_stays_and_is_told(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    set_aside(redis, "bad", timeout="soon")
    redis.set("rq:job:text", "text")
    redis.zadd(FAILED, {"text": 1})
    fail(redis, "good")
    assert replay.main(["--all"]) == 1
    said = capsys.readouterr()
    assert said.out == "1 back in the queue\n"
    assert said.err == (
        "replay: left where it is: text: its key in Redis holds no hash\n"
        "replay: left where it is: bad: field timeout cannot be read\n"
    )
    assert places(redis) == {"queued": ["good"], "failed": ["text"], "set aside": ["bad"]}


def test_a_job_under_a_rate_limit_is_left_to_rq(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    fail(redis, "job", rate_limit_key="calm", rate_limit_concurrency="1")
    assert replay.main(["--all"]) == 1
    assert "rq requeue --queue" in capsys.readouterr().err
    assert places(redis)["failed"] == ["job"]


def test_ids_without_a_job_are_cleared_away(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    redis.zadd(FAILED, {"failed": 2_000_000_000})
    redis.rpush(QUARANTINE, "aside")
    assert replay.main(["--all"]) == 0
    assert capsys.readouterr().out == "2 had expired or been deleted, nothing was left of them\n"
    assert redis.keys() == []


def test_a_key_of_another_type_loses_no_job(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    fail(redis, "failed")
    set_aside(redis, "aside")
    redis.set(QUEUE, "text")
    assert replay.main(["--all"]) == 0
    assert capsys.readouterr().out == "2 back in the queue\n"
    assert (redis.lrange(QUEUE, 0, -1), redis.get(f"{QUEUE}:was-a-string")) == (
        [b"failed", b"aside"],
        b"text",
    )


def test_a_redis_without_memory_takes_jobs_back(redis: Redis) -> None:
    # Its memory is full of jobs that stopped: the way out must be open.
    fail(redis, "failed")
    set_aside(redis, "aside")
    redis.config_set("maxmemory", 1)
    try:
        assert replay.main(["--all"]) == 0
    finally:
        redis.config_set("maxmemory", 0)
    assert places(redis) == {"queued": ["failed", "aside"], "failed": [], "set aside": []}


# --- what is chosen ----------------------------------------------------------------------------------------


def stop_some(redis: Redis) -> None:
    fail(redis, "rejected", f"worker.jobs.RejectedEvents: {REJECTED}\n[1] $.a: wrong\n[2] $: wrong")
    fail(redis, "database", "worker.db.DatabaseFault: UndefinedTable (SQLSTATE 42P01): migrate")
    fail(redis, "other", "ValueError: text")
    set_aside(redis, "repaired")
    set_aside(redis, "unreadable", timeout="soon")


@pytest.mark.parametrize(
    ("arguments", "requeued", "status"),
    [
        (["--reason", "database"], ["database"], 0),
        (["--reason", "other", "--reason", "repaired"], ["other", "repaired"], 0),
        (["--reason", "timeout"], [], 0),
        (["--reason", "unreadable"], [], 1),
        (["repaired", "rejected"], ["rejected", "repaired"], 0),
        (["rejected", "never"], ["rejected"], 1),
        (["--all"], ["rejected", "database", "other", "repaired"], 1),
    ],
)
def test_only_what_was_asked_for_is_replayed(
    redis: Redis, arguments: list[str], requeued: list[str], status: int
) -> None:
    stop_some(redis)
    assert replay.main(arguments) == status
    left = [job for job in ("rejected", "database", "other", "repaired", "unreadable") if job not in requeued]
    now = places(redis)
    assert (now["queued"], now["failed"] + now["set aside"]) == (requeued, left)


def test_an_id_that_no_stopped_job_has_is_named(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["never"]) == 1
    assert capsys.readouterr().err == "replay: no stopped job has this id: never\n"


@pytest.mark.parametrize("arguments", [["--all"], ["--discard", "rejected", "unreadable"]])
def test_a_dry_run_tells_and_changes_nothing(
    redis: Redis, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    stop_some(redis)
    before = everything(redis)
    replay.main([*arguments, "--dry-run"])
    assert everything(redis) == before
    what = "would be deleted: 2" if "--discard" in arguments else "would be replayed: 4"
    assert capsys.readouterr().out.splitlines()[0] == what


# --- while others do things --------------------------------------------------------------------------------


@pytest.mark.parametrize("worker_class", ["worker.drain.DrainWorker", "rq.Worker"], ids=["draining", "stock"])
def test_an_idle_worker_takes_replayed_jobs_at_once(
    redis: Redis, app: sample.App, connection: psycopg.Connection, start: Start, worker_class: str
) -> None:
    start(RQ_WORKER_CLASS=worker_class)
    until(lambda: [worker for worker in Worker.all(redis) if worker.get_state() == "idle"])
    for number in range(3):
        fail(redis, f"job-{number}", data=call([make.event(app, number)]), result_ttl="0")
    assert replay.main(["--all"]) == 0
    until(lambda: len(log_rows(connection)) == 3 and not redis.zcard(STARTED), seconds=20)
    assert places(redis) == {"queued": [], "failed": [], "set aside": []}


def test_killed_in_the_middle_it_loses_and_doubles_nothing(redis: Redis, valkey_url: str) -> None:
    for number in range(5):
        fail(redis, f"job-{number}")
        set_aside(redis, f"aside-{number}")
    code = """if True:
        import os, signal, sys
        from worker.replay import __main__ as replay
        requeue, pages = replay.requeue, []
        def dies(redis, jobs, queue):
            pages.append(jobs)
            if len(pages) == 3:
                requeue(redis, jobs, queue)
                os.kill(os.getpid(), signal.SIGKILL)
            return requeue(redis, jobs, queue)
        replay._PAGE, replay.requeue = 2, dies
        replay.main(["--all"])
    """
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": valkey_url}
    killed = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    queued = [f"job-{number}" for number in range(5)] + ["aside-0"]
    rest = [f"aside-{number}" for number in range(1, 5)]
    assert places(redis) == {"queued": queued, "failed": [], "set aside": rest}

    assert replay.main(["--all"]) == 0
    assert places(redis) == {"queued": queued + rest, "failed": [], "set aside": []}


def test_two_replays_at_once_put_each_job_back_once(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(redis, "failed")
    set_aside(redis, "aside")
    requeue = repair.requeue

    def both(redis: Redis, jobs: Any, queue: str) -> list[str]:
        assert requeue(redis, jobs, queue) == ["requeued", "requeued"]
        return requeue(redis, jobs, queue)

    monkeypatch.setattr(replay, "requeue", both)
    assert replay.main(["--all"]) == 0
    assert capsys.readouterr().out == "2 were not there any more: somebody else was faster\n"
    assert places(redis) == {"queued": ["failed", "aside"], "failed": [], "set aside": []}


def test_a_job_that_fails_again_meanwhile_is_not_replayed_twice(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(redis, "first")
    fail(redis, "second")
    requeue = repair.requeue

    def fails_again(redis: Redis, jobs: Any, queue: str) -> list[str]:
        answers = requeue(redis, jobs, queue)
        redis.rpop(QUEUE)
        redis.zadd(FAILED, {jobs[0].job_id: 2_000_000_001})
        return answers

    monkeypatch.setattr(replay, "_PAGE", 1)
    monkeypatch.setattr(replay, "requeue", fails_again)
    assert replay.main(["--all"]) == 0
    assert capsys.readouterr().out == "2 back in the queue\n"
    assert sorted(places(redis)["failed"]) == ["first", "second"]


def test_interrupted_it_tells_how_far_it_came(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(redis, "first")
    fail(redis, "second")
    requeue = repair.requeue

    def interrupted(redis: Redis, jobs: Any, queue: str) -> list[str]:
        if jobs[0].job_id == "second":
            raise KeyboardInterrupt
        return requeue(redis, jobs, queue)

    monkeypatch.setattr(replay, "_PAGE", 1)
    monkeypatch.setattr(replay, "requeue", interrupted)
    assert replay.main(["--all"]) == 1
    said = capsys.readouterr()
    assert (said.out, "run it again to go on" in said.err) == ("1 back in the queue\n", True)
    assert places(redis)["failed"] == ["second"]


# --- discarding --------------------------------------------------------------------------------------------


def test_discarding_deletes_what_was_named_and_nothing_else(
    redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_some(redis)
    redis.rpush(QUARANTINE, b"\xff")
    before = everything(redis)
    assert replay.main(["--discard", "rejected", "unreadable", "\\xff"]) == 0
    assert capsys.readouterr().out == "3 deleted\n"
    assert places(redis) == {"queued": [], "failed": ["database", "other"], "set aside": ["repaired"]}
    gone = {b"rq:job:rejected", b"rq:results:rejected", b"rq:job:unreadable"}
    assert everything(redis).keys() == before.keys() - gone


@pytest.mark.parametrize("status", ["queued", "started", "finished"])
def test_discarding_spares_a_job_that_was_enqueued_again(
    redis: Redis, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(redis, "job", status=status)
    before = everything(redis)
    assert replay.main(["--discard", "job"]) == 1
    assert "somebody enqueued it again" in capsys.readouterr().err
    assert everything(redis) == before


# --- the list ----------------------------------------------------------------------------------------------

LISTED = """\
stopped jobs: 4
  rejected             1  some events were refused, all others of these jobs are recorded
  database             1  PostgreSQL refused for a reason that stays until somebody acts
  repaired             1  set aside once, but can be read now
  unreadable           1  set aside: RQ cannot read these jobs

rejected  2025-11-16 06:00:00Z  rejected  5 events
  2 of 5 events rejected, all others are recorded
    [1] $.a: wrong
    [2] $: wrong

database  2025-11-16 06:00:00Z  database  no events
  UndefinedTable (SQLSTATE 42P01): migrate

repaired  quarantined  repaired  2 events
  set aside once, can be read now

unreadable  quarantined  unreadable
  field timeout cannot be read

replay: python -m worker.replay --all, or --reason REASON, or job ids
"""


def test_the_list_tells_what_stopped_when_and_why(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    stop_some(redis)
    redis.zrem(FAILED, "other")
    before = everything(redis)
    assert replay.main([]) == 0
    assert capsys.readouterr().out == LISTED
    assert everything(redis) == before


GROUPED = """\
stopped jobs: 47
  rejected            46  some events were refused, all others of these jobs are recorded
  other                1  an error that nobody foresaw

46 jobs  2025-11-16 06:00:00Z  rejected  230 events
    46 events: $.chapter_id: there is no such chapter: 7
    20 events: $.peer_mentor_id: there is no such user: hash 1
    20 events: $.peer_mentor_id: there is no such user: hash 2
    and 6 more
  jobs job-0, job-1, job-2 and 43 more

odd  2025-11-16 06:00:00Z  other  no events
  app.Odd (its text is not shown: it might quote data)

replay: python -m worker.replay --all, or --reason REASON, or job ids
"""


def test_one_cause_is_one_entry_however_many_jobs_have_it(
    redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(46):
        which = 1 if number < 20 else 2 if number < 40 else 3
        lines = f"[{number}] $.chapter_id: there is no such chapter: 7\n"
        lines += f"[50] $.peer_mentor_id: there is no such user: hash {which}"
        fail(redis, f"job-{number}", f"worker.jobs.RejectedEvents: {REJECTED}\n{lines}")
    fail(redis, "odd", "app.Odd: S3CR3T")
    assert replay.main([]) == 0
    assert capsys.readouterr().out == GROUPED


def test_the_list_is_bounded(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        lines = "\n".join(f"[{n}] $.{'abcde'[number]}: wrong" for n in range(9))
        fail(redis, f"job-{number}", f"worker.jobs.RejectedEvents: {REJECTED}\n{lines}")
    assert replay.main(["--limit", "2"]) == 0
    bounded = capsys.readouterr().out
    assert (bounded.count("    [0] $"), bounded.count("    [3] $"), bounded.count("    and 6 more")) == (
        2,
        0,
        2,
    )
    assert "and 3 more: --verbose shows all" in bounded
    assert replay.main(["--verbose"]) == 0
    whole = capsys.readouterr().out
    assert (whole.count("    [8] $"), "more" in whole) == (5, False)


def test_the_list_as_json(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    stop_some(redis)
    assert replay.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stopped"], told["reasons"]["rejected"], len(told["jobs"])) == (5, 1, 5)
    assert told["jobs"][0] == {
        "job_id": "rejected",
        "state": "failed",
        "since": "2025-11-16T06:00:00+00:00",
        "reason": "rejected",
        "why": "2 of 5 events rejected, all others are recorded",
        "events": 5,
        "rejected": ["[1] $.a: wrong", "[2] $: wrong"],
    }


def test_nothing_stopped(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([]) == 0
    assert capsys.readouterr().out == "stopped jobs: 0\n"


def test_a_closed_pipe_is_no_error(redis: Redis, valkey_url: str) -> None:
    lines = "\n".join(f"[{number}] $: {'wrong' * 20}" for number in range(2000))  # more than a pipe holds
    fail(redis, "job", f"worker.jobs.RejectedEvents: {REJECTED}\n{lines}")
    command = f"{sys.executable} -m worker.replay --verbose | head -n 1"
    environment = {"PATH": os.environ["PATH"], "REDIS_URL": valkey_url}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],  # noqa: S607
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped jobs: 1\n", "")


# --- usage -------------------------------------------------------------------------------------------------


def test_on_a_terminal_progress_is_shown(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        fail(redis, f"job-{number}")
    monkeypatch.setattr(replay, "_PAGE", 2)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert replay.main(["--all"]) == 0
    shown = capsys.readouterr().err
    assert all(f"{done}/4" in shown for done in (0, 2, 4))
    assert shown.endswith("\n")


@pytest.mark.parametrize(
    ("url", "require_tls", "status", "says"),
    [
        ("S3CRET", "0", 2, "REDIS_URL cannot be parsed"),
        ("redis://:S3CRET@127.0.0.1:1", "1", 1, "check REDIS_URL"),
        ("redis://:S3CRET@redis.example:1", "1", 2, "reaches another host without TLS"),
    ],
)
def test_wrong_settings_are_named_and_not_shown(
    url: str,
    require_tls: str,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("NOTIFLOG_REQUIRE_TLS", require_tls)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert replay.main([]) == status
    said = capsys.readouterr().err
    assert says in said
    assert "S3CRET" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nothing"],
        ["--reason", "weather"],
        ["--all", "job"],
        ["--all", "--reason", "other"],
        ["--discard"],
        ["--discard", "--all"],
        ["--discard", "--reason", "other"],
        ["--dry-run"],
        ["--all", "--json"],
        ["--limit", "0"],
        ["--limit", "many"],
    ],
)
def test_wrong_usage(redis: Redis, arguments: list[str]) -> None:
    fail(redis, "job")
    before = everything(redis)
    with pytest.raises(SystemExit) as caught:
        replay.main(arguments)
    assert (caught.value.code, everything(redis)) == (2, before)


def test_help_tells_options_reasons_examples_and_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.replay", "--help"], capture_output=True, text=True, check=True
    )
    words = ("--all", "--reason", "--discard", "--dry-run", "examples:", "rejected ", "exit status: 0")
    for word in (*words, "only adds what is missing"):
        assert word in done.stdout
