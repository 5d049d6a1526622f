"""How long a coordinator waits for one mentor's log: `python tests/benchmarks/coordinator_read.py`.

Fills the migrated table of a throw-away server with a million rows and reads the newest 50 of one mentor in
one chapter, each time of another mentor: as the owner, and as a coordinator under row level security with
policies of three shapes. It also reads all that the coordinator may see, with and without an index on the
chapter: what a reader who forgets to name mentor and chapter has to wait for.
"""

# ruff: noqa: T201 - a command prints

import argparse
import statistics
import sys
import time
from pathlib import Path

import psycopg

from worker.demo import sandbox
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect

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
EVERYTHING = "select * from follow_up_notification_log order by delivered_at desc limit 50"
COUNT = "select count(*) from follow_up_notification_log"


def main() -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows in the log (default: 1,000,000)")
    parser.add_argument("--reads", type=int, default=2_000, help="reads to measure (default: 2,000)")
    parser.add_argument("--postgres", type=Path, metavar="BIN", help="bin directory of another PostgreSQL")
    options = parser.parse_args()
    with (
        sandbox.directory() as directory,
        sandbox.postgres(directory, settings={"fsync": "off"}, bin_path=options.postgres) as server,
    ):
        sandbox.create_app_tables(server.url())
        with connect(server.url()) as owner:
            for migration in pending(owner):
                apply(owner, migration)
            sizes = {"mentors": MENTORS, "chapters": CHAPTERS, "rules": RULES, "rows": options.rows}
            owner.execute((FILL + COORDINATORS).format(**sizes).encode())
            owner.execute("vacuum analyze")
            (version, rows) = owner.execute(
                "select current_setting('server_version'), count(*) from follow_up_notification_log"
            ).fetchone() or ("", 0)
            print(
                f"PostgreSQL {version}, {rows:,} rows, {options.reads:,} reads of one mentor in one chapter"
            )
            show("no row level security", owner, options.reads, step=7)
            print(plan(owner, ONE_MENTOR, [7, 7]))
            owner.execute("alter table follow_up_notification_log enable row level security")
            for index in (None, "(chapter_id, delivered_at desc)"):
                if index:
                    owner.execute(f"create index on follow_up_notification_log {index}".encode())
                    print(f"\nWith another index, {index}:")
                for name, condition in POLICIES.items():
                    owner.execute(POLICY.format(condition=condition).encode())
                    with connect(server.url(user="coordinator")) as reader:
                        reader.execute("select set_config('request.jwt.claim.sub', md5('u1'), false)")
                        show(f"policy {name}", reader, options.reads, step=100)
    return 0


def show(name: str, connection: psycopg.Connection, reads: int, step: int) -> None:
    """Print how long the reads take, of every `step`th mentor; the coordinator's are 100 apart."""
    took = sorted(timed(connection, ONE_MENTOR, mentor(number * step)) for number in range(reads))
    print(
        f"\n{name}\n  one mentor in one chapter: p50 {statistics.median(took):.2f} ms, "
        f"p99 {took[int(len(took) * 0.99)]:.2f} ms, max {took[-1]:.2f} ms\n"
        f"  all that the reader may see, newest 50: {best(connection, EVERYTHING):.1f} ms; "
        f"counted: {best(connection, COUNT):.1f} ms"
    )


def mentor(number: int) -> list[int]:
    """A mentor and the mentor's chapter."""
    index = number % MENTORS
    return [1 + index, 1 + index % CHAPTERS]


def best(connection: psycopg.Connection, statement: str) -> float:
    """The shortest of five."""
    return min(timed(connection, statement) for _ in range(5))


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
