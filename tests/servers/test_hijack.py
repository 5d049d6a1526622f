"""Somebody who may create in `public` puts functions and operators there that fit better than PostgreSQL's.

None of them is ever called: neither by the owner who migrates, nor by the worker, nor by a command.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests import make
from worker import history
from worker.check.look import look
from worker.demo import sample, sandbox
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.report.reading import read_outcomes
from worker.servers.findings import database_findings
from worker.servers.migrations import apply, migrations, pending, roll_back
from worker.servers.postgres import connect
from worker.servers.settings import Settings

TYPES = [
    *("text", "varchar", "bpchar", "name", '"char"', "oid", "regclass", "smallint", "integer", "bigint"),
    *(
        "float8",
        "uuid",
        "boolean",
        "timestamptz",
        "timestamp",
        "date",
        "interval",
        "text[]",
        "name[]",
        "oid[]",
    ),
    *("uuid[]", "timestamptz[]", "smallint[]", "int2vector"),
]
OPERATORS = ["=", "<>", "<", ">", "<=", ">=", "||", "~", "!~", "&", "|", "<<", "+", "-"]
FUNCTIONS = [
    *(
        "unnest",
        "count",
        "array_agg",
        "array_position",
        "cardinality",
        "format",
        "concat",
        "string_agg",
        "max",
    ),
    *(
        "min",
        "encode",
        "lower",
        "to_regclass",
        "quote_ident",
        "pg_has_role",
        "row_security_active",
        "bool_or",
    ),
    *(
        "has_table_privilege",
        "has_schema_privilege",
        "has_column_privilege",
        "bool_and",
        "set_config",
        "timezone",
    ),
    *("current_setting", "pg_advisory_xact_lock", "format_type", "aclexplode", "pg_table_is_visible", "now"),
]


def hostile(url: str) -> None:
    """For any operator and function, and any types: one that fits exactly, unless PostgreSQL's own does."""
    with psycopg.connect(url) as anybody:
        taken = set(
            anybody.execute("select oprname, oprleft::regtype::oid, oprright::regtype::oid from pg_operator")
        )
        oids: dict[str, int] = dict(
            anybody.execute("select name, name::regtype::oid from unnest(%s::text[]) as name", [TYPES])
        )
        create = [
            "create function public.hijacked() returns void language plpgsql as"
            " 'begin raise exception using errcode = ''ZZZZZ''; end'"
        ]
        for left, right in product(TYPES, repeat=2):
            pair = f"hijack_{oids[left]}_{oids[right]}({left}, {right})"
            create.append(
                f"create function public.{pair} returns bool language sql as"
                " 'select public.hijacked(); select true'"
            )
            create += [
                f"create operator public.{operator} (function = public.{pair.partition('(')[0]},"
                f" leftarg = {left}, rightarg = {right})"
                for operator in OPERATORS
                if (operator, oids[left], oids[right]) not in taken
            ]
        arguments = [[one] for one in TYPES] + [[*two] for two in product(TYPES[:4], repeat=2)]
        arguments += [
            ["text"] * 3,
            ["text"] * 4,
            ["name", "text", "text"],
            ["text[]", "text"],
            ["name[]", "name"],
        ]
        create += [
            f"create function public.{name}({', '.join(some)}) returns text language sql as"
            " 'select public.hijacked(); select null::text'"
            for name, some in product(FUNCTIONS, arguments)
        ]
        anybody.execute(";".join(create).encode())


@pytest.mark.parametrize("kind", ["text", "varchar(300)", "char(20)"])
def test_neither_worker_nor_report_nor_history_calls_them(database: str, app: sample.App, kind: str) -> None:
    with psycopg.connect(database) as admin:
        admin.execute(f"alter table public.device_tokens alter token type {kind}".encode())
        admin.execute(
            "insert into public.device_tokens values ('dead', %b, '2026-01-01'), ('alive', %b, '2026-01-01')",
            [app.users[0], app.users[0]],
        )
    hostile(database)
    config = Settings(database_url=database)
    tokens = Tokens(config)
    events = [
        make.event(app, 0, results=[make.unregistered("dead"), make.unregistered("gone")]),
        make.event(app, 1, chapter_id=make.stranger()),
        make.event(app, 2, skipped="quiet_hours", results=[]),
    ]
    with connect(database) as connection:
        reports = [record(connection, tokens, [judge(events)])[0] for _ in range(2)]
        page = tokens.after(connection, "fcm", "", 10)
        left = tokens.count(connection, "fcm")
        outcomes = read_outcomes(connection, datetime.now(UTC) - timedelta(days=3650), UTC)
        keys = history.recorded(connection, ["key-0", "key-1"])
        assert len(history.newest(connection, app.users[0], app.chapters[0])) == 1
        assert history.last_deliveries_to(connection, app.users[0]) == {}
        assert history.last_deliveries_of(connection, app.rules[0]) == {}
    assert (reports[0].summary["pruned"], reports[0].summary["rejected"]) == (1, 1)
    assert left == 1
    assert reports[1].summary["duplicates"] == 2
    assert [row.token.strip() for row in page] == ["alive"]
    assert keys == {"key-0": "failed"}
    assert len(outcomes.days) == 1


def test_the_worker_s_own_role_does_not_call_them_where_it_is_refused(
    postgres: sandbox.Postgres,
    database: str,
    app: sample.App,
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create role hijacked login in role notiflog_worker")
        admin.execute("insert into public.device_tokens values ('dead', %b, '2026-01-01')", [app.users[0]])
        admin.execute("alter table public.device_tokens enable row level security")
        admin.execute("drop policy notiflog_worker_delete on public.device_tokens")
    hostile(database)
    url = postgres.url(str(conninfo_to_dict(database)["dbname"]), "hijacked")
    config = Settings(database_url=url)
    try:
        with connect(url) as connection:
            found = [*database_findings(connection, config)]
            record(
                connection, Tokens(config), [judge([make.event(app, results=[make.unregistered("dead")])])]
            )
    finally:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("drop role hijacked")

    assert [finding.name for finding in found if finding.level == "problem"] == ["postgres.privileges"]
    assert [line["sqlstate"] for line in logged() if line["event"] == "prune_refused"] == ["42501"]


def test_check_does_not_call_them(database: str, monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> None:
    hostile(database)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", valkey_url)
    found = [finding for finding in look("notiflog") if finding.name.startswith("postgres.")]

    assert [finding for finding in found if finding.level == "problem"] == []
    assert len(found) > 8


def test_who_migrates_does_not_call_them(empty_database: str) -> None:
    sandbox.create_app_tables(empty_database)
    hostile(empty_database)
    with connect(empty_database) as owner:
        assert [apply(owner, migration) for migration in pending(owner)] == [True] * len(migrations())
        assert pending(owner) == []
        for migration in reversed(migrations()):
            roll_back(owner, migration)
        assert pending(owner) == migrations()


def test_psql_does_not_call_them_for_the_migrations(empty_database: str) -> None:
    sandbox.create_app_tables(empty_database)
    hostile(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as psql:
        files = [*(migration.path for migration in migrations())]
        files += [migration.rollback for migration in reversed(migrations())]
        for file in files:
            psql.execute(file.read_bytes())


def test_they_would_be_called_otherwise(database: str) -> None:
    hostile(database)
    with psycopg.connect(database, autocommit=True) as careless:
        for statement in (
            "select * from unnest('{a}'::text[])",
            "select count('a'::text)",
            "select format('%s', 'a'::text)",
            "select 'a'::varchar = 'a'::text",
        ):
            with pytest.raises(psycopg.Error) as caught:
                careless.execute(statement.encode())
            assert caught.value.sqlstate == "ZZZZZ"
