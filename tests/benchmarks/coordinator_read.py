"""How long a coordinator waits for the log, and what it costs: `python tests/benchmarks/coordinator_read.py`.

Fills the migrated table of a throw-away server with a million rows and reads the newest 50 of one mentor in
one chapter, of one chapter, and of all that the reader may see, each time of other mentors and chapters: as
the owner, and as a coordinator under row level security with policies of three shapes. It asks for a
scheduler's cooldowns, too, 1,000 pairs of mentor and rule at once. At last it inserts as the worker does into
copies of the database with and without the indexes for these reads.
"""

# ruff: noqa: T201 - a command prints

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from pathlib import Path
from uuid import UUID

import psycopg

from worker import history
from worker.demo import sandbox
from worker.judge.classify import Outcome, Status
from worker.record import rows as statements
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect, transaction

MENTORS, CHAPTERS, RULES = 5_000, 300, 200

# A mentor belongs to one chapter and has about 200 rows, a few of them in another chapter.
FILL = """
insert into users select md5('u' || n)::uuid from generate_series(1, {mentors}) as n;
insert into chapters select md5('c' || n)::uuid from generate_series(1, {chapters}) as n;
insert into scenario_rules select md5('r' || n)::uuid from generate_series(1, {rules}) as n;
set session_replication_role = replica;
insert into follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status)
select md5('u' || 1 + n % {mentors})::uuid,
       md5('c' || 1 + (n % {mentors} + case when random() < 0.05 then 1 else 0 end) % {chapters})::uuid,
       md5('r' || 1 + floor(random() * {rules}))::uuid,
       now() - random() * interval '2 years',
       case when random() < 0.5 then 'fcm' else 'apns' end,
       encode(sha256(n::text::bytea), 'hex'),
       case when random() < 0.9 then 'delivered' else 'failed' end
  from generate_series(1, {rows}) as n;
reset session_replication_role;
"""

# What the later migration might bring: who coordinates which chapters, and who is asking.
COORDINATORS = """
create table chapter_coordinators (
  user_id uuid references users, chapter_id uuid references chapters, primary key (user_id, chapter_id)
);
insert into chapter_coordinators
select md5('u1')::uuid, md5('c' || n)::uuid from generate_series(1, {chapters}, 100) as n;
create function caller() returns uuid language sql stable
  return nullif(current_setting('request.jwt.claim.sub', true), '')::uuid;
create role coordinator login;
grant select on follow_up_notification_log, chapter_coordinators to coordinator;
"""

POLICIES = {
    "exists (...)": "exists (select from chapter_coordinators as c where c.user_id = caller() "
    "and c.chapter_id = follow_up_notification_log.chapter_id)",
    "chapter_id in (select ...)": "chapter_id in (select chapter_id from chapter_coordinators "
    "where user_id = caller())",
    "chapter_id = any(array(select ...))": "chapter_id = any(array(select chapter_id "
    "from chapter_coordinators where user_id = (select caller())))",
}

POLICY = """
drop policy if exists chapters on follow_up_notification_log;
create policy chapters on follow_up_notification_log for select to coordinator using ({condition})
"""

ONE_MENTOR = """
select * from follow_up_notification_log
 where peer_mentor_id = md5('u' || %s)::uuid and chapter_id = md5('c' || %s)::uuid
 order by delivered_at desc limit 50
"""
ONE_CHAPTER = """
select * from follow_up_notification_log where chapter_id = md5('c' || %s)::uuid
 order by delivered_at desc limit 50
"""
EVERYTHING = "select * from follow_up_notification_log order by delivered_at desc limit 50"
BY_CHAPTER = """
select newest.* from chapter_coordinators as mine
 cross join lateral (
   select * from follow_up_notification_log where chapter_id = mine.chapter_id
    order by delivered_at desc limit 50) as newest
 where mine.user_id = caller()
 order by newest.delivered_at desc limit 50
"""
COUNT = "select count(*) from follow_up_notification_log"

#: What the reads have an index for, to be done without in turn.
INDEXES = {
    "chapter": "follow_up_notification_log_chapter_id_delivered_at_idx",
    "mentor and rule": "follow_up_notification_log_peer_mentor_id_scenario_rule_id_idx",
}


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the log (default: 1,000,000)")
    parser.add_argument("--reads", type=int, default=2_000, help="reads to measure (default: 2,000)")
    parser.add_argument("--inserts", type=int, default=300, help="batches of 500 rows (default: 300)")
    parser.add_argument("--postgres", type=Path, metavar="BIN", help="bin directory of another PostgreSQL")
    options = parser.parse_args()
    settings = {"synchronous_commit": "off", "max_wal_size": "8GB"}
    with (
        sandbox.directory() as directory,
        sandbox.postgres(directory, settings=settings, bin_path=options.postgres) as server,
    ):
        sandbox.create_app_tables(server.url())
        with connect(server.url()) as owner:
            fill(owner, options.rows)
            (version,) = owner.execute("select current_setting('server_version')").fetchone() or ("",)
            print(f"PostgreSQL {version}, {options.rows:,} rows, {options.reads:,} reads of each kind")
            read(server, owner, options.reads)
        insert(server, options.inserts)
    return 0


def fill(owner: psycopg.Connection, rows: int) -> None:
    """Migrate, and make mentors, chapters, rules, coordinators and the log's rows."""
    for migration in pending(owner):
        apply(owner, migration)
    sizes = {"mentors": MENTORS, "chapters": CHAPTERS, "rules": RULES, "rows": rows}
    owner.execute((FILL + COORDINATORS).format(**sizes).encode())
    owner.execute("vacuum analyze")


def read(server: sandbox.Postgres, owner: psycopg.Connection, reads: int) -> None:
    """Print how long each reader waits, and a scheduler for its cooldowns."""
    show("no row level security", owner, reads, step=7)
    print(plan(owner, ONE_CHAPTER, [7]))
    for within in (None, timedelta(hours=72)):
        took = [cooldowns(owner, number, within) for number in range(20)]
        print(f"  cooldowns of 1,000 pairs, within {within}: {percentiles(took)}")
    owner.execute("alter table follow_up_notification_log enable row level security")
    for name, condition in POLICIES.items():
        owner.execute(POLICY.format(condition=condition).encode())
        with connect(server.url(user="coordinator")) as reader:
            reader.execute("select set_config('request.jwt.claim.sub', md5('u1'), false)")
            show(f"policy {name}", reader, reads, step=100)
    owner.execute("alter table follow_up_notification_log disable row level security")


def show(name: str, connection: psycopg.Connection, reads: int, step: int) -> None:
    """Print how long the reads take, of every `step`th mentor; the coordinator's are 100 apart."""
    mentors = [mentor(number * step) for number in range(reads)]
    print(f"\n{name}")
    took = [timed(connection, ONE_MENTOR, pair) for pair in mentors]
    print(f"  one mentor in one chapter, newest 50: {percentiles(took)}")
    took = [timed(connection, ONE_CHAPTER, [chapter]) for _, chapter in mentors]
    print(f"  one chapter, newest 50: {percentiles(took)}")
    # A twentieth as often: without a good plan each reads the whole table.
    took = [timed(connection, EVERYTHING) for _ in range(max(5, reads // 20))]
    print(f"  all that the reader may see, newest 50: {percentiles(took)}")
    took = [timed(connection, BY_CHAPTER) for _ in range(reads)]
    print(f"  ... asked chapter by chapter: {percentiles(took)}")
    print(f"  ... counted: {min(timed(connection, COUNT) for _ in range(5)):.1f} ms", flush=True)


def percentiles(took: Sequence[float]) -> str:
    """Milliseconds, in words."""
    ordered = sorted(took)
    worst = ordered[int(len(ordered) * 0.99)]
    return f"p50 {statistics.median(ordered):.2f} ms, p99 {worst:.2f} ms, max {ordered[-1]:.2f} ms"


def cooldowns(owner: psycopg.Connection, number: int, within: timedelta | None) -> float:
    """Milliseconds for the last deliveries of 1,000 pairs that are on record."""
    some = "select peer_mentor_id, scenario_rule_id from follow_up_notification_log offset %s limit 1000"
    pairs: list[tuple[UUID | str, UUID | str]] = list(owner.execute(some, [number * 1_000]).fetchall())
    started = time.perf_counter()
    history.last_deliveries(owner, pairs, within)
    return (time.perf_counter() - started) * 1_000


def insert(server: sandbox.Postgres, batches: int) -> None:
    """Print what a batch costs with all indexes and without; in turn, so that noise hits all alike."""
    without: dict[str, list[str]] = {"all indexes": [], "without both": list(INDEXES.values())}
    without |= {f"without that on {name}": [index] for name, index in INDEXES.items()}
    took: dict[str, list[float]] = {name: [] for name in without}
    with ExitStack() as stack:
        connections = {}
        for number, (name, indexes) in enumerate(without.items()):
            with connect(server.url("template1")) as admin:
                admin.execute(f"create database copy_{number} template postgres".encode())
            connections[name] = stack.enter_context(connect(server.url(f"copy_{number}")))
            for index in indexes:
                connections[name].execute(f"drop index {index}".encode())
            connections[name].execute("vacuum analyze follow_up_notification_log")
        with connect(server.url("template1")) as admin:
            admin.execute("checkpoint")
        for number in range(batches):
            rows = batch(number)
            for name in random.sample(list(connections), len(connections)):
                started = time.perf_counter()
                with transaction(connections[name]):
                    connections[name].execute(*statements.inserting(rows)).fetchall()
                took[name].append((time.perf_counter() - started) * 1_000)
    print(f"\n{batches} batches of 500 rows")
    least = statistics.median(took["without both"])
    for name, times in took.items():
        middle = statistics.median(times)
        print(f"  {name}: p50 {middle:.2f} ms, {middle / least - 1:+.1%}")


def batch(number: int) -> list[Outcome]:
    """500 new rows, sorted by key as the worker does."""
    rows = []
    for n in range(500):
        mentor_id, chapter_id = mentor(random.randrange(MENTORS))  # noqa: S311 - made-up data
        key = sha256(f"new {number} {n}".encode()).hexdigest()
        status: Status = "delivered" if random.random() < 0.9 else "failed"  # noqa: S311
        rule_id = 1 + random.randrange(RULES)  # noqa: S311
        ids = (made(f"u{mentor_id}"), made(f"c{chapter_id}"), made(f"r{rule_id}"))
        rows.append(Outcome(*ids, datetime.now(UTC), "fcm", key, status, None, True, (), (), ()))
    return sorted(rows, key=lambda row: row.idempotency_key)


def made(name: str) -> UUID:
    """The id that FILL made of a name."""
    return UUID(hex=md5(name.encode(), usedforsecurity=False).hexdigest())


def mentor(number: int) -> list[int]:
    """A mentor and the mentor's chapter."""
    index = number % MENTORS
    return [1 + index, 1 + index % CHAPTERS]


def timed(connection: psycopg.Connection, statement: str, parameters: list[int] | None = None) -> float:
    """Milliseconds from sending a statement to having its rows."""
    started = time.perf_counter()
    connection.execute(statement.encode(), parameters).fetchall()
    return (time.perf_counter() - started) * 1_000


def plan(connection: psycopg.Connection, statement: str, parameters: list[int]) -> str:
    """The plan of a statement, as it ran."""
    explained = connection.execute(f"explain (analyze, buffers) {statement}".encode(), parameters)
    return "\n".join(f"  {line}" for (line,) in explained)


if __name__ == "__main__":
    sys.exit(main())
