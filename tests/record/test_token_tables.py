"""Token tables as apps have them: what a send that finds tokens dead leaves of each, and of its row."""

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from tests import make
from tests.migrations.conftest import Database, Kind, apply_all, servers
from worker.demo import sample, sandbox
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.findings import database_findings
from worker.servers.postgres import connect
from worker.servers.settings import Settings, read_settings

__all__ = ["servers"]  # a fixture

_FILE = tomllib.loads(Path(__file__).with_name("cases").joinpath("token_tables.toml").read_text())
CASES: list[dict[str, Any]] = _FILE["case"]
by_shape = pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])

SCHEMA = "shape"
ROLE = "shape_worker"


class Site(NamedTuple):
    """A migrated database, and the app in it."""

    database: Database
    app: sample.App


@pytest.fixture(scope="module", params=[18, 15])
def site(request: pytest.FixtureRequest, servers: Callable[[Kind], sandbox.Postgres]) -> Iterator[Site]:
    kind = Kind(request.param, "plain")
    server = servers(kind)
    name = "token_tables"
    with psycopg.connect(server.url("template1"), autocommit=True) as admin:
        admin.execute(f"create database {name} template template_{kind.era} owner {kind.owner}".encode())
        admin.execute(f"drop role if exists {ROLE}".encode())
    database = Database(server, name, kind)
    apply_all(database)
    database.run("create extension citext")
    database.run(f"create role {ROLE} login in role notiflog_worker", kind.owner)
    with database.connect() as connection:
        app = sample.make_app(connection, users=5)
    yield Site(database, app)
    with psycopg.connect(server.url("template1"), autocommit=True) as admin:
        admin.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def shape(site: Site, case: dict[str, Any]) -> Iterator[Settings]:
    """The settings for a case whose table has been made."""
    database = site.database
    database.run("truncate public.follow_up_notification_log")
    in_schema = f"set search_path = {SCHEMA}, public; " + case["make"].replace("{schema}", SCHEMA)
    database.run(f"create schema {SCHEMA}")
    database.run(in_schema)
    database.run(
        f"grant usage on schema {SCHEMA} to {ROLE};"
        f"grant select, update, delete on all tables in schema {SCHEMA} to {ROLE};"
        f"alter role {ROLE} set timezone = '{case.get('zone', 'UTC')}';"
        f"alter role {ROLE} set search_path = public"
    )
    if denied := case.get("deny"):
        database.run(f"revoke all on {SCHEMA}.{denied} from {ROLE}")
    yield read_settings({"DATABASE_URL": database.url_of(ROLE), **environment(case)})
    database.run(f"drop schema {SCHEMA} cascade; drop publication if exists everything")


def environment(case: dict[str, Any]) -> dict[str, str]:
    """The variables of a case, its tables in the schema."""
    common = {"TABLE": "devices", **case.get("settings", {})}
    variables = {f"NOTIFLOG_TOKEN_{name}": value for name, value in common.items()}
    for channel, own in case.get("own", {}).items():
        variables |= {f"NOTIFLOG_{channel.upper()}_TOKEN_{name}": value for name, value in own.items()}
    return {
        name: f"{SCHEMA}.{value}" if name.endswith("_TABLE") else value for name, value in variables.items()
    }


def dead(app: sample.App, case: dict[str, Any]) -> list[dict[str, Any]]:
    """The job: one prompt whose tokens are all gone."""
    channel = case.get("channel", "fcm")
    tokens = case.get("dead", ["dead"])
    if channel == "fcm":
        results = [make.unregistered(token) for token in tokens]
    else:
        results = [make.result(token, http_status=410, body={"reason": "Unregistered"}) for token in tokens]
    return [make.event(app, results=results, delivery_channel=channel)]


@by_shape
def test_the_tokens_that_are_left_and_the_row_that_is_there(
    site: Site, case: dict[str, Any], shape: Settings
) -> None:
    recorded_as_it_should(site, case, shape)


@pytest.mark.parametrize("site", [15], indirect=True)  # Debian's: that of the wheel has no ICU
@pytest.mark.parametrize("case", _FILE["icu"], ids=lambda case: case["why"])
def test_the_same_with_collations_of_icu(site: Site, case: dict[str, Any], shape: Settings) -> None:
    recorded_as_it_should(site, case, shape)


def recorded_as_it_should(site: Site, case: dict[str, Any], shape: Settings) -> None:
    """Record a prompt whose tokens are gone, and compare what is left with the case."""
    with connect(shape.database_url) as connection:
        (report,) = record(connection, Tokens(shape), [judge(dead(site.app, case))])
    show = case.get("show", "select token from devices order by token").replace("{schema}", SCHEMA)
    with site.database.connect() as connection:
        connection.execute(f"set search_path = {SCHEMA}, public".encode())
        left = [str(row[0]).strip() for row in connection.execute(show.encode())]
        rows = connection.execute("select count(*) from public.follow_up_notification_log").fetchone()
    counted = {name: report.summary[name] for name in ("pruned", "kept", "refused", "absent")}
    assert left == case["left"]
    assert counted == {"pruned": 0, "kept": 0, "refused": 0, "absent": 0, **case.get("counts", {})}
    assert (rows, report.rejected) == ((1,), [])


@pytest.mark.parametrize("case", [case for case in CASES if "line" in case], ids=lambda case: case["why"])
def test_a_refusal_is_told_in_one_line(
    site: Site, case: dict[str, Any], shape: Settings, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    tokens = Tokens(shape)
    with connect(shape.database_url) as connection:
        record(connection, tokens, [judge(dead(site.app, case))])
    (line,) = [line for line in logged() if line["event"] == "prune_refused"]
    told = {name: line[name] for name in ("level", "tokens", "sqlstate", "culprit")}
    assert told == {"level": "error", "tokens": case["counts"]["refused"], "culprit": None, **case["line"]}
    assert line["remedy"]
    assert not any(token in str(line) for token in case.get("dead", ["dead"]) if token != "dead")


@pytest.mark.parametrize("case", [case for case in CASES if "start" in case], ids=lambda case: case["why"])
def test_what_can_never_be_pruned_is_refused_at_start_and_nothing_else_is_said(
    case: dict[str, Any], shape: Settings
) -> None:
    with connect(shape.database_url) as connection:
        problems = [str(found) for found in database_findings(connection, shape) if found.level == "problem"]
    assert len(problems) == (2 if "row level security" in case["start"] else 1), problems
    assert case["start"] in problems[0]


@pytest.mark.parametrize(
    "case", [case for case in CASES if "start" not in case], ids=lambda case: case["why"]
)
def test_what_can_be_pruned_starts(case: dict[str, Any], shape: Settings) -> None:
    with connect(shape.database_url) as connection:
        assert [
            str(found) for found in database_findings(connection, shape) if found.level == "problem"
        ] == []


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
def test_a_table_that_refuses_everything_is_told_of_once_a_minute(
    site: Site, shape: Settings, logged: Callable[[], list[dict[str, Any]]], case: dict[str, Any]
) -> None:
    tokens = Tokens(shape)
    site.database.run(f"revoke delete on {SCHEMA}.devices from {ROLE}")
    with connect(shape.database_url) as connection:
        for number in range(3):
            events = [make.event(site.app, number, results=[make.unregistered("dead")])]
            record(connection, tokens, [judge(events)])
    assert [line["event"] for line in logged()].count("prune_refused") == 1
    assert site.database.run("select count(*) from public.follow_up_notification_log") == [(3,)]


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
def test_a_locked_token_is_passed_over_and_the_others_go(
    site: Site, shape: Settings, case: dict[str, Any], logged: Callable[[], list[dict[str, Any]]]
) -> None:
    with site.database.connect() as holder, holder.transaction():
        holder.execute(f"select from {SCHEMA}.devices where token = 'dead' for update".encode())
        with connect(shape.database_url) as connection:
            events = [make.event(site.app, results=[make.unregistered("dead"), make.unregistered("other")])]
            (report,) = record(connection, Tokens(shape), [judge(events)])
    assert (report.summary["pruned"], report.summary["refused"], report.summary["failed"]) == (1, 1, 1)
    (line,) = [line for line in logged() if line["event"] == "prune_refused"]
    assert (line["sqlstate"], line["tokens"]) == ("55P03", 1)


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
def test_many_dead_tokens_are_pruned_in_slices(site: Site, shape: Settings, case: dict[str, Any]) -> None:
    many = "select 'token ' || n, '2026-11-01Z'::timestamptz from generate_series(1, 950) as n"
    site.database.run(f"set search_path = {SCHEMA}; insert into devices {many}")
    results = [make.unregistered(f"token {number}") for number in range(1, 951)]
    with connect(shape.database_url) as connection:
        (report,) = record(connection, Tokens(shape), [judge([make.event(site.app, results=results)])])
    assert (report.summary["pruned"], report.summary["refused"]) == (950, 0)


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
def test_a_table_without_a_schema_is_found_on_the_roles_search_path(
    site: Site, shape: Settings, case: dict[str, Any]
) -> None:
    site.database.run(f"alter role {ROLE} set search_path = {SCHEMA}, public")
    bare = read_settings({"DATABASE_URL": shape.database_url, "NOTIFLOG_TOKEN_TABLE": "devices"})
    with connect(shape.database_url) as connection:
        (report,) = record(connection, Tokens(bare), [judge(dead(site.app, case))])
    assert report.summary["pruned"] == 1


def warnings(shape: Settings) -> dict[str, str]:
    with connect(shape.database_url) as connection:
        found = [each for each in database_findings(connection, shape) if each.level == "warning"]
    return {each.name: str(each) for each in found}


#: Statements, and what `check` warns of then: the finding, and words of it.
WARNINGS: dict[str, tuple[str, str, str]] = {
    "a cascade into other tables": (
        "create table sessions (token text references devices on delete cascade);"
        "create index on sessions (token)",
        "postgres.token_cascade",
        "deleting a token deletes rows of shape.sessions, too",
    ),
    "a reference without cascade": (
        "create table deliveries (token text constraint of_device references devices);"
        "create index on deliveries (token)",
        "postgres.token_reference",
        "shape.deliveries refers to shape.devices (of_device) without cascade",
    ),
    "a reference without an index": (
        "create table visits (token text constraint of_device references devices on delete set null)",
        "postgres.token_reference_index",
        "no index serves of_device of shape.visits",
    ),
    "a token column that shares its rows": (
        "alter table devices drop constraint devices_pkey, alter token drop not null;"
        "create index on devices (token)",
        "postgres.token_row",
        "set NOTIFLOG_TOKEN_PRUNE=token=null",
    ),
    "a trigger that moves the guard": (
        "create function touch() returns trigger language plpgsql as $$"
        " begin NEW.updated_at = now(); return new; end $$;"
        "create trigger touch before update on devices for each row execute function touch()",
        "postgres.guard_moves",
        "trigger touch of shape.devices sets updated_at on every update",
    ),
    "times without a zone": (
        "alter table devices alter updated_at type timestamp",
        "postgres.guard",
        "updated_at is timestamp without time zone, and nobody says which zone's",
    ),
    "no index of the token": (
        "alter table devices drop constraint devices_pkey",
        "postgres.token_index",
        "run `create index on shape.devices (token)`",
    ),
}


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
@pytest.mark.parametrize(("make_so", "name", "words"), WARNINGS.values(), ids=WARNINGS)
def test_check_warns_of(
    site: Site, shape: Settings, case: dict[str, Any], make_so: str, name: str, words: str
) -> None:
    assert name not in warnings(shape)
    site.database.run(f"set search_path = {SCHEMA}; {make_so}")
    assert words in warnings(shape)[name]


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
def test_a_token_that_is_marked_needs_no_warning_about_deletes(
    site: Site, shape: Settings, case: dict[str, Any]
) -> None:
    site.database.run(
        f"set search_path = {SCHEMA}; alter table devices add active boolean;"
        "create table deliveries (token text references devices)"
    )
    marking = read_settings(
        {"DATABASE_URL": shape.database_url, **environment(case), "NOTIFLOG_TOKEN_PRUNE": "active=false"}
    )
    assert {name for name in warnings(marking) if name.startswith("postgres.token")} == set()


@pytest.mark.parametrize("case", [CASES[0]], ids=["the usual table"])
@pytest.mark.parametrize("counted", ["twice in a job", "in two jobs"])
def test_a_dead_token_counts_once(site: Site, shape: Settings, case: dict[str, Any], counted: str) -> None:
    events = [make.event(site.app, number, results=[make.unregistered("dead")]) for number in range(2)]
    batches = [judge(events)] if counted == "twice in a job" else [judge([event]) for event in events]
    with connect(shape.database_url) as connection:
        reports = record(connection, Tokens(shape), batches)
    assert sum(report.summary["pruned"] for report in reports) == 1
