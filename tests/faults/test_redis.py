"""Redis away, or full: nothing is lost, nothing is doubled, and no worker hangs or ends as if all were well.

Workers live through one outage side by side, each with a queue of its own: some idle, some in the middle of
a turn, which is committed while Redis is away.
"""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from redis.exceptions import OutOfMemoryError
from rq import Queue, Retry
from rq.group import Group
from rq.job import Job

from tests import make
from tests.drain.conftest import LEASES, STARTED, Started, until
from tests.faults.conftest import JOBS, KINDS, OUTAGE, Postgres, Site, Sites, Valkey, left, writers
from worker.demo import sample

LOG = "public.follow_up_notification_log"


@contextmanager
def locked(server: Postgres, database: str) -> Iterator[None]:
    """Nobody can write outcomes."""
    with closing(psycopg.connect(server.url(database))) as holder:
        holder.execute(f"lock table {LOG} in exclusive mode")
        yield


def is_idle(site: Site) -> bool:
    return bool(site.redis.hget(f"rq:worker:{site.name}", "state") == b"idle")


def supervise(site: Site, worker: Started) -> None:
    """Start workers anew, as a supervisor does, until nothing is left to do."""
    deadline = time.monotonic() + 60
    while site.unfinished():
        assert time.monotonic() < deadline, site.unfinished()
        if worker.process.poll() is None:
            time.sleep(0.05)
            continue
        # As if the time were up after which a dead worker's jobs are taken over.
        site.redis.delete(LEASES, "rq:clean_registries:notiflog")
        for member in site.redis.zrange(STARTED, 0, -1):
            if b"-" not in member.rpartition(b":")[2]:  # claimed by a stock worker
                site.redis.zadd(STARTED, {member: time.time() - 1})
        worker = site.start("--burst")
        worker.wait()


def test_after_an_outage_workers_go_on_and_every_outcome_is_there_once(
    volatile_sites: Sites,
    mortal_valkey: Valkey,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
) -> None:
    sites = volatile_sites("idle-stock", "idle-draining", "stock", "draining")
    idle, busy = sites[:2], sites[2:]
    for site in busy:
        site.enqueue(mortal_app, retry=Retry(max=3))
    with locked(mortal_postgres, mortal_database):
        workers = {site.name: site.start("--name", site.name) for site in sites}
        until(lambda: all(is_idle(site) for site in idle))
        until(lambda: writers(mortal_postgres, mortal_database) == len(busy))
        mortal_valkey.kill()
    back = time.monotonic() + OUTAGE
    until(lambda: left(mortal_postgres, mortal_database)[0] == 2 + 2 * JOBS)  # written, and no way to say so
    time.sleep(max(0, back - time.monotonic()))
    mortal_valkey.start()
    for site in idle:
        site.enqueue(mortal_app, retry=Retry(max=3))
    for site in sites:
        supervise(site, workers[site.name])
    assert left(mortal_postgres, mortal_database) == (8 * JOBS, 8 * JOBS, 1000 - 4 * JOBS)
    gone = {name for name, worker in workers.items() if worker.process.poll() is not None}
    assert gone <= {"stock"}, workers["draining"].output  # RQ's own worker gives up in the middle of a job


def test_a_draining_worker_ends_with_a_sentence_when_redis_stays_away_and_the_next_one_goes_on(
    volatile_sites: Sites,
    mortal_valkey: Valkey,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
) -> None:
    sites = volatile_sites("idle-draining", "draining")
    idle, busy = sites
    busy.enqueue(mortal_app)
    with locked(mortal_postgres, mortal_database):
        times = {"TEST_REDIS_PATIENCE": "2", "TEST_LOOK_AROUND": "1"}
        workers = [site.start("--name", site.name, **times) for site in sites]
        until(lambda: is_idle(idle))
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        mortal_valkey.kill()
        until(lambda: workers[1].logged("redis_unavailable"))
    codes = [worker.wait(20) for worker in workers]
    said = ["Stopped: no Redis for 2 s" in worker.output for worker in workers]
    mortal_valkey.start()
    for site, worker in zip(sites, workers, strict=True):
        supervise(site, worker)
    assert (codes, said) == ([1, 1], [True, True]), [worker.output for worker in workers]
    assert left(mortal_postgres, mortal_database)[0] == 2 * JOBS


def test_a_worker_that_redis_ended_blames_no_other_server(
    volatile_sites: Sites,
    mortal_valkey: Valkey,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
) -> None:
    (site,) = volatile_sites("draining")
    site.enqueue(mortal_app)
    with locked(mortal_postgres, mortal_database):
        worker = site.start(TEST_REDIS_PATIENCE="1", TEST_LOOK_AROUND="0.5")
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        mortal_valkey.kill()
        assert worker.wait(20) == 1
    assert worker.logged("database_unavailable") == []


#: What a worker is about when Redis goes away: longer than redis-py tries by itself.
ABOUT: dict[str, Callable[[Site, list[Any]], list[Any]]] = {
    "failing": lambda site, events: [site.queue.enqueue("worker.jobs.record_outcomes", [*events, {}])],
    "the ordinary path": lambda site, events: Group.create(site.redis).enqueue_many(
        site.queue, [Queue.prepare_data("worker.jobs.record_outcomes", (events,))]
    ),
    "dependents": lambda site, events: [
        parent := site.queue.enqueue("worker.jobs.record_outcomes", events),
        site.queue.enqueue("worker.jobs.record_outcomes", [], depends_on=parent),
    ],
}


def test_every_call_waits_for_redis(
    volatile_sites: Sites,
    mortal_valkey: Valkey,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
) -> None:
    jobs: dict[str, list[Job]] = {}
    sites = dict(zip(ABOUT, volatile_sites(*(f"{number}-draining" for number in range(3))), strict=True))
    workers = {}
    for number, (what, site) in enumerate(sites.items()):
        ids = range(100 * number, 100 * number + 100)
        events = [[make.event(mortal_app, n, idempotency_key=f"{what}-{n}")] for n in ids]
        jobs[what] = [job for one in events for job in ABOUT[what](site, one)]
        workers[what] = site.start()
    try:
        until(lambda: all(finished(jobs[what]) for what in ABOUT))
        mortal_valkey.kill()
        time.sleep(max(OUTAGE, 10))
    finally:
        mortal_valkey.start()
    until(lambda: all(finished(jobs[what]) == len(jobs[what]) for what in ABOUT), 60)
    assert [worker.process.poll() for worker in workers.values()] == [None] * 3
    assert left(mortal_postgres, mortal_database)[:2] == (300, 300)
    for what, status in {
        "failing": "failed",
        "the ordinary path": "finished",
        "dependents": "finished",
    }.items():
        assert {job.get_status(refresh=True) for job in jobs[what]} == {status}


def finished(jobs: Sequence[Job]) -> int:
    """How many jobs are over."""
    return sum(job.get_status(refresh=True) in ("finished", "failed") for job in jobs)


# --- Redis refuses ----------------------------------------------------------------------------------------


@contextmanager
def demoted(site: Site) -> Iterator[None]:
    """After a failover the address still leads to the old primary."""
    site.redis.replicaof("127.0.0.1", "1")
    yield
    site.redis.replicaof("no", "one")


@contextmanager
def without_replicas(site: Site) -> Iterator[None]:
    site.redis.config_set("min-replicas-to-write", 1)
    yield
    site.redis.config_set("min-replicas-to-write", 0)


REFUSALS = {"a replica": demoted, "too few replicas": without_replicas}


@pytest.mark.parametrize("words", REFUSALS)
def test_a_draining_worker_waits_for_a_redis_that_refuses_to_write(
    volatile_sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    words: str,
) -> None:
    idle, busy = volatile_sites("idle-draining", "draining")
    busy.enqueue(mortal_app)
    with locked(mortal_postgres, mortal_database):
        workers = [site.start("--name", site.name) for site in (idle, busy)]
        until(lambda: is_idle(idle))
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        refusal = REFUSALS[words](busy)
        refusal.__enter__()
    for worker in workers:
        until(lambda: any(words in line["problem"] for line in worker.logged("redis_unavailable")))  # noqa: B023
    refusal.__exit__(None, None, None)
    idle.enqueue(mortal_app)
    until(lambda: idle.unfinished() == busy.unfinished() == {})
    for worker in workers:
        worker.send(signal.SIGTERM)
    assert [worker.wait() for worker in workers] == [0, 0]
    assert left(mortal_postgres, mortal_database)[0] == 4 * JOBS


# --- Redis full -----------------------------------------------------------------------------------------


@contextmanager
def full(site: Site) -> Iterator[None]:
    """As `maxmemory` with `noeviction`: whatever needs memory is refused."""
    site.redis.config_set("maxmemory", 1)
    yield
    site.redis.config_set("maxmemory", 0)


def test_a_producer_is_told_that_redis_is_full(volatile_sites: Sites, mortal_app: sample.App) -> None:
    (site,) = volatile_sites("draining")
    with full(site), pytest.raises(OutOfMemoryError):
        site.enqueue(mortal_app)
    assert site.unfinished() == {}


@pytest.mark.parametrize("result_ttl", [0, 500])
def test_a_running_draining_worker_empties_a_full_redis(
    volatile_sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    result_ttl: int,
) -> None:
    (site,) = volatile_sites("draining")
    with locked(mortal_postgres, mortal_database):
        site.enqueue(mortal_app, jobs=1, result_ttl=result_ttl)
        worker = site.start(TEST_LOOK_AROUND="0.3")
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        site.enqueue(mortal_app, jobs=JOBS - 1, first=1, result_ttl=result_ttl)
        site.redis.config_set("maxmemory", 1)
    try:
        until(lambda: not site.unfinished(), 15)
        time.sleep(1)  # some looks around, idle
    finally:
        site.redis.config_set("maxmemory", 0)
    assert (left(mortal_postgres, mortal_database)[0], worker.process.poll()) == (2 * JOBS, None)


@pytest.mark.parametrize("path", ["rejected", "grouped"])
def test_a_job_for_rqs_own_code_does_not_end_a_worker_whose_redis_is_full(
    volatile_sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    path: str,
) -> None:
    (site,) = volatile_sites("draining")
    events = [make.event(mortal_app, 900), *([{}] if path == "rejected" else [])]
    with locked(mortal_postgres, mortal_database):
        site.enqueue(mortal_app, jobs=1)
        worker = site.start(TEST_LOOK_AROUND="0.3")
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        data = Queue.prepare_data("worker.jobs.record_outcomes", (events,))
        if path == "grouped":
            (job,) = Group.create(site.redis).enqueue_many(site.queue, [data])
        else:
            (job,) = site.queue.enqueue_many([data])
        site.enqueue(mortal_app, jobs=1, first=1)
        site.redis.config_set("maxmemory", 1)
    try:
        until(lambda: worker.logged("job_quarantined"), 15)
        until(lambda: left(mortal_postgres, mortal_database)[0] >= 4)
    finally:
        site.redis.config_set("maxmemory", 0)
    assert [line["job"] for line in worker.logged("job_quarantined")] == [job.id]
    assert (worker.process.poll(), site.redis.zcard("rq:wip:notiflog")) == (None, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_with_a_full_redis_no_worker_starts_as_if_all_were_well_and_no_job_is_lost(
    volatile_sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    kind: str,
) -> None:
    (site,) = volatile_sites(kind)
    site.enqueue(mortal_app)
    with full(site):
        assert site.start("--burst").wait(20) == 1
    supervise(site, site.start("--burst"))
    assert (site.unfinished(), left(mortal_postgres, mortal_database)[0]) == ({}, 2 * JOBS)


def test_a_stock_worker_whose_redis_fills_up_in_the_middle_of_a_job_loses_nothing(
    volatile_sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    (site,) = volatile_sites("stock")
    site.enqueue(mortal_app, retry=Retry(max=3))
    with locked(mortal_postgres, mortal_database):
        worker = site.start()
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        site.redis.config_set("maxmemory", 1)
    until(lambda: left(mortal_postgres, mortal_database)[0] == 2)
    until(lambda: worker.process.poll() is not None)
    site.redis.config_set("maxmemory", 0)
    supervise(site, worker)
    assert left(mortal_postgres, mortal_database)[0] == 2 * JOBS
