"""PostgreSQL away, in every way it can be: nothing is lost, nothing is doubled, no job fails for it.

Both kinds of workers live through each fault side by side, on one database, each with a queue of its own.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from rq import Retry

from tests import make
from tests.drain.conftest import STARTED, Started, failure, statuses, until
from tests.faults.conftest import JOBS, KINDS, OUTAGE, Postgres, Site, Sites, left, writers
from tests.faults.proxy import proxy
from worker.demo import sample
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.findings import unwritable
from worker.servers.postgres import connect, transaction
from worker.servers.settings import Settings

LOG = "public.follow_up_notification_log"
#: Somebody else's row, with a key of ours.
INSERT = """
insert into public.follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status)
select users.id, chapters.id, scenario_rules.id, now(), 'fcm', %s, 'delivered'
  from public.users, public.chapters, public.scenario_rules limit 1
"""
#: All rows, no key twice, and the tokens gone that are dead.
ALL = (2 * JOBS * len(KINDS), 2 * JOBS * len(KINDS), 1000 - JOBS * len(KINDS))


class Place(NamedTuple):
    """Where a fault happens."""

    server: Postgres
    database: str

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.server.url(self.database), autocommit=True)

    def admin(self, statement: str) -> list[tuple[object, ...]]:
        return self.server.admin(statement, self.database)


Fault = Callable[[Place], AbstractContextManager[None]]


def waits(worker: Started, *, for_what: str = "") -> bool:
    """Whether the worker said that it waits, with a job in its hands, for this to pass."""
    lines = [line for line in worker.logged("database_unavailable") if "retry_in" in line]
    return any(for_what in line["problem"] for line in lines)


# --- faults that are there when the job comes -----------------------------------------------------------


@contextmanager
def server_away(place: Place) -> Iterator[None]:
    place.server.crash()
    yield
    place.server.start()


@contextmanager
def read_only(place: Place) -> Iterator[None]:
    """As after a failover, until the address points to the new primary."""
    place.admin("alter system set default_transaction_read_only = on")
    place.admin("select pg_reload_conf()")
    until(lambda: place.admin("show default_transaction_read_only") == [("on",)])
    yield
    with place.connect() as connection:
        connection.execute("set default_transaction_read_only = off")
        connection.execute("alter system reset default_transaction_read_only")
        connection.execute("select pg_reload_conf()")


@contextmanager
def no_connection_left(place: Place) -> Iterator[None]:
    with ExitStack() as others:
        with suppress(psycopg.OperationalError):
            while True:
                others.enter_context(place.connect())
        yield


@contextmanager
def disk_full(place: Place) -> Iterator[None]:
    """The kernel says ENOSPC when the table grows: its file is /dev/full. Needs no mount, hence no root."""
    ((path,),) = place.admin(f"select pg_relation_filepath('{LOG}')")
    file = place.server.directory / str(path)
    file.unlink()
    file.symlink_to("/dev/full")
    yield
    file.unlink()
    file.touch()
    place.server.own(file)


@contextmanager
def statement_too_slow(place: Place) -> Iterator[None]:
    """A trigger of somebody's takes longer than the statement timeout, which is shortened here."""
    place.admin(
        "create function public.slow() returns trigger language plpgsql as"
        " 'begin perform pg_sleep(60); return new; end'"
    )
    place.admin(
        f"create trigger slow before insert on {LOG} for each statement execute function public.slow()"
    )
    yield
    place.admin(
        "create or replace function public.slow() returns trigger language plpgsql as 'begin return new; end'"
    )


@contextmanager
def table_locked(place: Place) -> Iterator[None]:
    """Longer than the lock timeout, which is shortened here."""
    with psycopg.connect(place.server.url(place.database)) as holder:
        holder.execute(f"lock table {LOG} in exclusive mode")
        yield


@contextmanager
def transaction_too_long(place: Place) -> Iterator[None]:
    """Somebody has set a timeout for all transactions, and the table is locked for longer."""
    with table_locked(place):
        place.admin(f"alter database {place.database} set transaction_timeout = '300ms'")
        yield
        place.admin(f"alter database {place.database} reset transaction_timeout")


@contextmanager
def key_held(place: Place) -> Iterator[None]:
    """By a session that wrote it and then fell silent, as that of a host that vanished; it ends in time."""
    with psycopg.connect(place.server.url(place.database)) as silent:
        for kind in KINDS:
            silent.execute(INSERT, [f"{kind}-0"])
        yield
        silent.rollback()


#: The fault, what the workers say of it, and limits of their transactions that are shortened.
AT_FIRST: dict[str, tuple[Fault, str, str]] = {
    "the server is away": (server_away, "no connection", ""),
    "25006: read-only": (read_only, "25006", ""),
    "53300: no connection left": (no_connection_left, "all connections are taken", ""),
    "53100: disk full": (disk_full, "53100", ""),
    "57014: statement timeout": (statement_too_slow, "57014", "statement_timeout=300ms"),
    "55P03: table locked": (table_locked, "55P03", "lock_timeout=300ms"),
    "25P04: transaction timeout": (transaction_too_long, "25P04", ""),
}


@pytest.mark.parametrize(("fault", "problem", "limits"), AT_FIRST.values(), ids=AT_FIRST)
def test_workers_wait_until_it_passes(
    sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    fault: Fault,
    problem: str,
    limits: str,
) -> None:
    both = sites(*KINDS)
    for site in both:
        site.enqueue(mortal_app)
    with fault(Place(mortal_postgres, mortal_database)):
        workers = [site.start("--burst", TEST_LIMITS=limits) for site in both]
        until(lambda: all(waits(worker, for_what=problem) for worker in workers))
    assert [worker.wait() for worker in workers] == [0, 0]
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


def test_a_key_that_a_silent_session_holds_is_waited_for(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    both = sites(*KINDS)
    for site in both:
        site.enqueue(mortal_app)
    with key_held(Place(mortal_postgres, mortal_database)):
        workers = [site.start("--burst", TEST_LOOK_AROUND="1") for site in both]
        until(lambda: all(worker.logged("rows_waiting") for worker in workers))
    assert [worker.wait() for worker in workers] == [0, 0]
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


def test_no_transaction_waits_for_ever(mortal_postgres: Postgres, mortal_database: str) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    with connect(mortal_postgres.url(mortal_database)) as connection, transaction(connection):
        limits = [connection.execute(f"show {name}".encode()).fetchone() for name in names]
    assert limits == [("2s",), ("1min",), ("1min",)]


# --- faults in the middle of a transaction --------------------------------------------------------------


def server_crashes(place: Place) -> None:
    place.server.crash()
    place.server.start()


def sessions_are_ended(place: Place) -> None:
    place.admin(f"select pg_terminate_backend(pid) {WORKERS_SESSIONS}")


def statements_are_cancelled(place: Place) -> None:
    place.admin(f"select pg_cancel_backend(pid) {WORKERS_SESSIONS}")


WORKERS_SESSIONS = (
    "from pg_stat_activity where application_name = 'notiflog' and datname = current_database()"
)

IN_THE_MIDDLE: dict[str, tuple[Callable[[Place], None], str]] = {
    "the server crashes": (server_crashes, "no connection"),
    "57P01: sessions are ended": (sessions_are_ended, "57P01"),
    "57014: statements are cancelled": (statements_are_cancelled, "57014"),
}


@pytest.mark.parametrize(("strike", "problem"), IN_THE_MIDDLE.values(), ids=IN_THE_MIDDLE)
def test_workers_write_again_what_was_cut_off(
    sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    strike: Callable[[Place], None],
    problem: str,
) -> None:
    place = Place(mortal_postgres, mortal_database)
    both = sites(*KINDS)
    for site in both:
        site.enqueue(mortal_app)
    with locked(place):
        workers = [site.start("--burst") for site in both]
        until(lambda: writers(mortal_postgres, mortal_database) == len(KINDS))

        def struck() -> bool:
            strike(place)
            return all(waits(worker, for_what=problem) for worker in workers)

        until(struck)  # again and again: what waits first may be a look at the tables at the start
    assert [worker.wait() for worker in workers] == [0, 0]
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """Nobody can write outcomes, until the block or the server ends."""
    with closing(place.connect()) as holder:
        holder.execute("begin")
        holder.execute(f"lock table {LOG} in exclusive mode")
        yield


def test_the_loser_of_a_deadlock_writes_again(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    place = Place(mortal_postgres, mortal_database)
    place.admin(
        f"alter database {mortal_database} set deadlock_timeout = '1500ms'"
    )  # time to close the circle
    both = sites(*KINDS)

    def lose(site: Site) -> Started:
        with closing(place.connect()) as other:
            other.execute("set deadlock_timeout = '1min'")  # the loser is the one who looks first
            other.execute("begin")
            other.execute("select from public.device_tokens where token = %s for update", [site.token(0)])
            site.enqueue(mortal_app, jobs=1)
            worker = site.start("--burst")
            until(lambda: waits_for(place, other))  # it has written its keys
            with suppress(psycopg.errors.UniqueViolation):
                other.execute(INSERT, [f"{site.name}-0"])
            until(lambda: waits(worker, for_what="40P01"))
            return worker

    with ThreadPoolExecutor() as threads:
        workers = list(threads.map(lose, both))
    assert [worker.wait() for worker in workers] == [0, 0]
    assert ([site.unfinished() for site in both], left(*place)) == ([{}, {}], (4, 4, 998))


def waits_for(place: Place, other: psycopg.Connection) -> bool:
    """Whether a session waits for a lock that `other` holds."""
    with place.connect() as connection:
        query = "select pid from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        return connection.execute(query, [other.info.backend_pid]).fetchone() is not None


@pytest.mark.parametrize("what", ["COMMIT", "reply"])
def test_a_commit_in_doubt_is_written_once(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App, what: Any
) -> None:
    both = sites(*KINDS)
    workers = []
    with ExitStack() as proxies:
        for site in both:
            site.enqueue(mortal_app)
            before = proxies.enter_context(proxy(mortal_postgres.socket))
            before.lose(what)
            url = f"postgresql://{mortal_postgres.superuser}@127.0.0.1:{before.port}/{mortal_database}"
            # A COMMIT that is lost leaves a session behind that holds the keys, until PostgreSQL ends it.
            limits = "idle_in_transaction_session_timeout=1s,lock_timeout=500ms"
            workers.append(site.start("--burst", DATABASE_URL=url, TEST_LIMITS=limits))
        assert [worker.wait() for worker in workers] == [0, 0]
    said = [{line["duplicates"] for line in worker.logged("outcomes_recorded")} for worker in workers]
    assert all((sum(duplicates) > 0) == (what == "reply") for duplicates in said), said
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


def test_a_server_that_freezes_is_waited_for(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    place = Place(mortal_postgres, mortal_database)
    both = sites(*KINDS)
    for site in both:
        site.enqueue(mortal_app)
    with locked(place):
        workers = [site.start("--burst") for site in both]
        until(lambda: writers(mortal_postgres, mortal_database) == len(KINDS))
        with mortal_postgres.frozen():
            time.sleep(2)
    assert [worker.wait() for worker in workers] == [0, 0]
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


def test_a_server_that_stays_frozen_is_asked_anew(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    (site,) = sites("draining")
    site.enqueue(mortal_app)
    with locked(Place(mortal_postgres, mortal_database)):
        worker = site.start("--burst", TEST_LOOK_AROUND="0.5", TEST_STANDSTILL="1")
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        with mortal_postgres.frozen():
            until(lambda: worker.logged("database_unavailable"))
    assert worker.wait() == 0, worker.output
    assert site.unfinished() == {}
    assert left(mortal_postgres, mortal_database) == (2 * JOBS, 2 * JOBS, 1000 - JOBS)


# --- what a worker does meanwhile, and when it is told to stop ------------------------------------------


def heartbeat(site: Site) -> bytes:
    beat = site.redis.hget(f"rq:worker:{site.name}", "last_heartbeat")
    return bytes(beat or b"")


def have_beaten(both: list[Site], before: list[bytes]) -> bool:
    return all(heartbeat(site) != beat for site, beat in zip(both, before, strict=True))


def rq_info(site: Site) -> str:
    """What `rq info` shows of the site's worker."""
    rq = Path(sys.executable).with_name("rq")
    done = subprocess.run([rq, "info"], env=site.environment, capture_output=True, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(site.name)]
    return line


def stop(worker: Started, how: str) -> None:
    """Shut down warm or cold, in good time."""
    worker.send(signal.SIGTERM)
    if how == "cold":
        time.sleep(1.2)  # a second one within a second counts as the same
        worker.send(signal.SIGTERM)
    assert worker.wait(20) == 0


@pytest.mark.parametrize("how", ["warm", "cold"])
@pytest.mark.parametrize("state", ["crashed", "frozen"])
def test_a_draining_worker_that_is_told_to_stop_does_so_and_gives_its_jobs_back(
    sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    how: str,
    state: str,
) -> None:
    (site,) = sites("draining")
    jobs = site.enqueue(mortal_app)
    with locked(Place(mortal_postgres, mortal_database)):
        worker = site.start(TEST_LAST_WRITES="3")
        until(lambda: writers(mortal_postgres, mortal_database) == 1)
        if state == "crashed":
            mortal_postgres.crash()
            until(lambda: waits(worker))
            stop(worker, how)
        else:
            with mortal_postgres.frozen():
                stop(worker, how)
    assert (statuses(jobs), site.unfinished()) == (["queued"] * JOBS, {"queued": JOBS})


def test_a_stock_worker_that_is_told_to_stop_does_so_and_gives_its_job_back(
    sites: Sites, mortal_postgres: Postgres, mortal_app: sample.App
) -> None:
    (site,) = sites("stock")
    jobs = site.enqueue(mortal_app, job_timeout=8)  # a quarter of that is waited for PostgreSQL
    mortal_postgres.crash()
    worker = site.start()
    until(lambda: waits(worker))
    stop(worker, "warm")
    assert (statuses(jobs), site.unfinished()) == (["queued"] * JOBS, {"queued": JOBS})


def test_a_stock_job_that_waits_beyond_its_timeout_writes_nothing_and_is_tried_again(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    (site,) = sites("stock")
    (job,) = site.enqueue(mortal_app, jobs=1, job_timeout=1, retry=Retry(max=3))
    with locked(Place(mortal_postgres, mortal_database)):
        worker = site.start("--burst")
        until(lambda: "JobTimeoutException" in worker.output)
        rows, _, _ = left(mortal_postgres, mortal_database)
    assert worker.wait() == 0
    assert (rows, statuses([job]), left(mortal_postgres, mortal_database)[0]) == (0, ["finished"], 2)


def test_through_an_outage_of_seconds_workers_stay_alive_and_keep_their_jobs(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    both = sites(*KINDS)
    for site in both:
        site.enqueue(mortal_app)
    with locked(Place(mortal_postgres, mortal_database)):
        every_second = ("--burst", "--job-monitoring-interval", "1")
        workers = [site.start("--name", site.name, *every_second, TEST_LOOK_AROUND="1") for site in both]
        until(lambda: writers(mortal_postgres, mortal_database) == len(KINDS))
        mortal_postgres.crash()
    back = time.monotonic() + OUTAGE
    for _ in range(2):
        before = [heartbeat(site) for site in both]
        until(partial(have_beaten, both, before))
    shown = [rq_info(site) for site in both]
    held = [(site.queue.count, site.redis.zcard(STARTED)) for site in both]
    time.sleep(max(0, back - time.monotonic()))
    mortal_postgres.start()
    assert [worker.wait() for worker in workers] == [0, 0]
    assert held == [(JOBS - 1, 1), (0, JOBS)]
    assert ["busy" in line for line in shown] == [True, True]
    assert ([site.unfinished() for site in both], left(mortal_postgres, mortal_database)) == ([{}, {}], ALL)


# --- faults that stay until somebody acts ---------------------------------------------------------------


class Lasting(NamedTuple):
    """What is done to the database while workers run, what they say of it, and what cures it."""

    harm: str
    sentence: str
    cure: str


LASTING = {
    "42P01: the log table is gone": Lasting(
        f"alter table {LOG} rename to gone",
        "a table is missing: run `python -m worker.migrate`",
        "alter table public.gone rename to follow_up_notification_log",
    ),
    "42501: a privilege is taken away": Lasting(
        f"revoke insert on {LOG} from notiflog_worker",
        "lacks a privilege",
        f"grant insert on {LOG} to notiflog_worker",
    ),
    "42501: row level security on the log, without a policy": Lasting(
        f"alter table {LOG} enable row level security; drop policy notiflog_worker_insert on {LOG}",
        "lacks a privilege or a row level security policy",
        f"alter table {LOG} disable row level security",
    ),
    "28P01: the password is changed": Lasting(
        "alter role app password 'another'; " + f"select pg_terminate_backend(pid) {WORKERS_SESSIONS}",
        "password authentication failed for user ...': check DATABASE_URL",
        "alter role app password 'right'",
    ),
}


@pytest.fixture
def app_role(mortal_postgres: Postgres, mortal_database: str) -> Iterator[str]:
    """The URL of a member of notiflog_worker who must give a password."""
    file = mortal_postgres.directory / "pg_hba.conf"
    trusting = file.read_text()
    mortal_postgres.admin("create role app login password 'right' in role notiflog_worker")
    file.write_text("local all app scram-sha-256\n" + trusting)
    mortal_postgres.admin("select pg_reload_conf()")
    yield mortal_postgres.url(mortal_database, "app:right")
    file.write_text(trusting)
    mortal_postgres.admin("select pg_reload_conf()")
    mortal_postgres.admin("drop role app")


@pytest.mark.parametrize("lasting", LASTING.values(), ids=LASTING)
def test_a_lasting_fault_stops_the_draining_worker_fails_the_stock_job_and_loses_neither(
    sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    app_role: str,
    lasting: Lasting,
) -> None:
    place = Place(mortal_postgres, mortal_database)
    stock, draining = both = sites(*KINDS)
    workers = [site.start(DATABASE_URL=app_role) for site in both]
    for site in both:
        site.enqueue(mortal_app, jobs=1)
    until(lambda: left(*place)[0] == 4)  # they run, and could write

    place.admin(lasting.harm)
    jobs = [job for site in both for job in site.enqueue(mortal_app, jobs=JOBS - 1, first=1)]
    until(lambda: len(stock.queue.failed_job_registry) == JOBS - 1)
    code = workers[1].wait()
    said = {failure(job).partition("DatabaseFault: ")[2] for job in jobs[: JOBS - 1]}
    assert ([lasting.sentence in sentence for sentence in (*said, workers[1].output)], code) == (
        [True, True],
        1,
    )
    assert [site.unfinished() for site in both] == [{"failed": JOBS - 1}, {"queued": JOBS - 1}]
    assert "Traceback" not in workers[1].output

    place.admin(lasting.cure)
    for job in jobs[: JOBS - 1]:
        job.requeue()
    assert draining.start("--burst", DATABASE_URL=app_role).wait() == 0
    until(lambda: not stock.unfinished())
    assert (draining.unfinished(), left(*place)) == ({}, ALL)


#: What is done to the token table while workers run, the SQLSTATE they tell, and what cures it.
OF_TOKENS = {
    "the table is gone": Lasting(
        "alter table public.device_tokens rename to gone",
        "42P01",
        "alter table public.gone rename to device_tokens",
    ),
    "a column is gone": Lasting(
        "alter table public.device_tokens rename updated_at to gone",
        "42703",
        "alter table public.device_tokens rename gone to updated_at",
    ),
    "a privilege is taken away": Lasting(
        "revoke delete on public.device_tokens from notiflog_worker",
        "42501",
        "grant delete on public.device_tokens to notiflog_worker",
    ),
    "row level security, without a policy": Lasting(
        "alter table public.device_tokens enable row level security;"
        " drop policy notiflog_worker_delete on public.device_tokens",
        "42501",
        "alter table public.device_tokens disable row level security",
    ),
}


@pytest.mark.parametrize("lasting", OF_TOKENS.values(), ids=OF_TOKENS)
def test_a_fault_of_the_token_table_stops_no_worker_and_keeps_the_tokens(
    sites: Sites,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    app_role: str,
    lasting: Lasting,
) -> None:
    place = Place(mortal_postgres, mortal_database)
    both = sites(*KINDS)
    workers = [site.start(DATABASE_URL=app_role) for site in both]
    for site in both:
        site.enqueue(mortal_app, jobs=1)
    until(lambda: left(*place)[0] == 4)  # they run, and could write
    place.admin(lasting.harm)
    for site in both:
        site.enqueue(mortal_app, jobs=JOBS - 1, first=1)
    until(lambda: [site.unfinished() for site in both] == [{}, {}])
    told = {line["sqlstate"] for worker in workers for line in worker.logged("prune_refused")}
    place.admin(lasting.cure)
    assert (told, [worker.process.poll() for worker in workers]) == ({lasting.sentence}, [None, None])
    rows, keys, tokens = left(*place)
    assert (rows, keys, tokens) == (ALL[0], ALL[1], ALL[2] + 2 * (JOBS - 1))


def test_a_database_that_does_not_exist_is_refused(
    sites: Sites, mortal_postgres: Postgres, mortal_app: sample.App
) -> None:
    (site,) = sites("draining")
    jobs = site.enqueue(mortal_app)
    worker = site.start(DATABASE_URL=mortal_postgres.url("nowhere"))
    assert (worker.wait(), statuses(jobs)) == (1, ["queued"] * JOBS)
    assert "does not exist': check DATABASE_URL" in worker.output


def test_what_is_recorded_outlives_a_crash_where_commits_are_asynchronous(
    mortal_postgres: Postgres, mortal_app: sample.App, mortal_database: str
) -> None:
    """`synchronous_commit = off` would lose the last commits, with their jobs gone from Redis."""
    mortal_postgres.admin(f"alter database {mortal_database} set synchronous_commit = off")
    url = mortal_postgres.url(mortal_database)
    config = Settings(database_url=url)
    mortal_postgres.admin("alter system set wal_writer_delay = '10s'")
    mortal_postgres.admin("select pg_reload_conf()")
    with connect(url) as connection:
        for n in range(20):
            event = make.event(mortal_app, n, results=[make.unregistered(f"dead-{n}")])
            record(connection, Tokens(config), [judge([event])])
        mortal_postgres.crash()
    mortal_postgres.start()
    mortal_postgres.admin("alter system reset wal_writer_delay")
    mortal_postgres.admin("select pg_reload_conf()")

    assert left(mortal_postgres, mortal_database) == (20, 20, 980)


def test_a_standby_is_told_and_waited_for(
    sites: Sites, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App
) -> None:
    """As when the address leads to the wrong one of two servers, or a failover is under way."""
    (site,) = sites("draining")
    site.enqueue(mortal_app)
    signal_file = mortal_postgres.directory / "standby.signal"
    mortal_postgres.stop()
    signal_file.touch()
    mortal_postgres.own(signal_file)
    mortal_postgres.start()
    worker = site.start("--burst")
    try:
        until(lambda: waits(worker, for_what="a standby"))
        with connect(mortal_postgres.url(mortal_database)) as connection:
            (finding,) = unwritable(connection)
    finally:
        mortal_postgres.admin("select pg_promote()")
    assert worker.wait() == 0
    assert (finding.level, finding.text) == ("problem", "a standby answers, which takes no rows")
    assert (site.unfinished(), left(mortal_postgres, mortal_database)[0]) == ({}, 2 * JOBS)
