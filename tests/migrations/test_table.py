"""The table is what other teams build on: columns, constraints, indexes, and what they accept and refuse."""

# ruff: noqa: S608 - statements are put together from constants of this file

import json
from collections.abc import Iterator, Mapping

import psycopg
import pytest
from psycopg import errors

from tests.migrations.conftest import ROOT, TWO_KINDS, Database, Kind
from worker.servers.migrations import migrations

USER, CHAPTER, RULE, OTHER_RULE = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in range(1, 5))

ROW = {
    "peer_mentor_id": USER,
    "chapter_id": CHAPTER,
    "scenario_rule_id": RULE,
    "delivered_at": "2026-11-22T06:00:00Z",
    "delivery_channel": "fcm",
    "idempotency_key": "key",
    "status": "delivered",
}
INSERT = f"insert into public.follow_up_notification_log ({', '.join(ROW)}) values ({', '.join(['%s'] * 7)})"


@pytest.fixture(params=[*TWO_KINDS, Kind(18, "plain"), Kind(15, "plain")], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def connection(migrated: Database) -> Iterator[psycopg.Connection]:
    with migrated.connect(migrated.kind.owner) as connection:
        connection.execute("insert into users values (%s)", [USER])
        connection.execute("insert into chapters values (%s)", [CHAPTER])
        connection.execute("insert into scenario_rules values (%s), (%s)", [RULE, OTHER_RULE])
        yield connection


def insert(connection: psycopg.Connection, **changes: str | None) -> None:
    connection.execute(INSERT.encode(), list({**ROW, **changes}.values()))


def test_columns_have_exactly_the_specified_types_nullability_and_defaults(migrated: Database) -> None:
    assert migrated.run(
        """
        select column_name, data_type, is_nullable, column_default
          from information_schema.columns
         where table_schema = 'public' and table_name = 'follow_up_notification_log'
         order by ordinal_position
        """
    ) == [
        ("log_id", "uuid", "NO", "gen_random_uuid()"),
        ("peer_mentor_id", "uuid", "NO", None),
        ("chapter_id", "uuid", "NO", None),
        ("scenario_rule_id", "uuid", "NO", None),
        ("delivered_at", "timestamp with time zone", "NO", None),
        ("delivery_channel", "text", "NO", None),
        ("idempotency_key", "text", "NO", None),
        ("status", "text", "NO", None),
        ("created_at", "timestamp with time zone", "YES", "now()"),
    ]


def test_constraints_are_exactly_the_specified_ones_under_postgresqls_own_names(migrated: Database) -> None:
    assert migrated.run(
        r"""
        select replace(conname, 'follow_up_notification_log_', ''), pg_get_constraintdef(oid)
          from pg_constraint
         where conrelid = 'follow_up_notification_log'::regclass and contype <> 'n' -- shown by the columns
         order by contype, conname
        """
    ) == [
        ("delivery_channel_check", "CHECK ((delivery_channel = ANY (ARRAY['fcm'::text, 'apns'::text])))"),
        (
            "status_check",
            "CHECK ((status = ANY (ARRAY['delivered'::text, 'failed'::text, 'skipped'::text])))",
        ),
        ("chapter_id_fkey", "FOREIGN KEY (chapter_id) REFERENCES chapters(id)"),
        ("peer_mentor_id_fkey", "FOREIGN KEY (peer_mentor_id) REFERENCES users(id)"),
        (
            "scenario_rule_id_fkey",
            "FOREIGN KEY (scenario_rule_id) REFERENCES scenario_rules(id) ON DELETE CASCADE",
        ),
        ("pkey", "PRIMARY KEY (log_id)"),
        ("idempotency_key_key", "UNIQUE (idempotency_key)"),
    ]


def test_indexes_are_the_specified_ones(migrated: Database) -> None:
    assert migrated.run(
        """
        select substring(pg_get_indexdef(indexrelid) from 'btree (.*)')
          from pg_index where indrelid = 'follow_up_notification_log'::regclass and not indisunique
         order by 1
        """
    ) == [
        ("(chapter_id, delivered_at DESC)",),
        ("(peer_mentor_id, chapter_id)",),
        ("(peer_mentor_id, scenario_rule_id, delivered_at DESC) WHERE (status = 'delivered'::text)",),
        ("(scenario_rule_id)",),
    ]


def test_no_index_begins_as_another_does(migrated: Database) -> None:
    """What a longer index begins with needs no index of its own."""
    assert (
        migrated.run(
            """
            select one.indexrelid::regclass, other.indexrelid::regclass
              from pg_index as one join pg_index as other using (indrelid)
             where indrelid = 'follow_up_notification_log'::regclass and one.indexrelid <> other.indexrelid
               and one.indpred is null and other.indpred is null
               and concat(other.indkey::text, ' ') like concat(one.indkey::text, ' %')
            """
        )
        == []
    )


def test_indexes_are_created_after_the_table() -> None:
    text = migrations()[0].path.read_text()
    assert 0 < text.index("create table") < text.index("create index") < text.rindex("create index")


@pytest.mark.parametrize("kind", [Kind(18, "plain"), Kind(15, "plain")], ids=str)
def test_planner_uses_the_indexes_at_100_000_rows(migrated: Database) -> None:
    with migrated.connect() as connection:
        connection.execute("set session_replication_role = replica")  # fast: foreign keys are not asked
        connection.execute(
            """
            insert into follow_up_notification_log
                   (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                    idempotency_key, status)
            select md5('m' || n % 2000)::uuid, md5('c' || n % 50)::uuid, md5('r' || n % 500)::uuid,
                   now() - n * interval '1 minute', 'fcm', n::text, 'delivered'
              from generate_series(1, 100000) as n
            """
        )
        connection.execute("analyze follow_up_notification_log")
        for condition, index in (
            (
                b"peer_mentor_id = md5('m7')::uuid and chapter_id = md5('c7')::uuid",
                "peer_mentor_id_chapter_id",
            ),
            (b"peer_mentor_id = md5('m7')::uuid", "peer_mentor_id_chapter_id"),
            (b"scenario_rule_id = md5('r7')::uuid", "scenario_rule_id"),
        ):
            statement = b"explain (format json) select * from follow_up_notification_log where " + condition
            (plan,) = connection.execute(statement).fetchone() or ()
            assert f'"follow_up_notification_log_{index}_idx"' in json.dumps(plan), condition


def test_every_channel_and_status_is_accepted(connection: psycopg.Connection) -> None:
    for channel in ("fcm", "apns"):
        for status in ("delivered", "failed", "skipped"):
            insert(connection, delivery_channel=channel, status=status, idempotency_key=f"{channel} {status}")
    assert connection.execute(
        "select count(*), count(distinct log_id), count(created_at) from follow_up_notification_log"
    ).fetchone() == (6, 6, 6)


def test_a_bad_row_is_refused_with_the_right_error(
    connection: psycopg.Connection, subtests: pytest.Subtests
) -> None:
    nobody = OTHER_RULE[:-1] + "9"
    new = {"idempotency_key": "new"}
    cases: list[tuple[Mapping[str, str | None], type[psycopg.Error]]] = [
        ({}, errors.UniqueViolation),
        ({**new, "delivery_channel": "sms"}, errors.CheckViolation),
        ({**new, "delivery_channel": "FCM"}, errors.CheckViolation),
        ({**new, "status": "sent"}, errors.CheckViolation),
        *(({**new, column: None}, errors.NotNullViolation) for column in ROW),
        *(({**new, column: nobody}, errors.ForeignKeyViolation) for column in list(ROW)[:3]),
    ]
    insert(connection)
    for changes, error in cases:
        with subtests.test(str(changes)), pytest.raises(error):
            insert(connection, **changes)


def test_deleting_a_rule_clears_its_rows_and_no_others(connection: psycopg.Connection) -> None:
    insert(connection, idempotency_key="a")
    insert(connection, idempotency_key="b", scenario_rule_id=OTHER_RULE)
    connection.execute("delete from scenario_rules where id = %s", [RULE])
    assert connection.execute("select idempotency_key from follow_up_notification_log").fetchall() == [("b",)]


def test_deleting_a_user_or_chapter_with_rows_is_refused(connection: psycopg.Connection) -> None:
    insert(connection)
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute("delete from users")
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute("delete from chapters")


def test_the_key_convention_is_told_in_the_file_and_on_the_column(migrated: Database) -> None:
    ((comment,),) = migrated.run(
        """
        select col_description('follow_up_notification_log'::regclass, attnum) from pg_attribute
         where attrelid = 'follow_up_notification_log'::regclass and attname = 'idempotency_key'
        """
    )
    file = (ROOT / "migrations" / "20261122060000_follow_up_notification_log.sql").read_text()
    comments = "\n".join(line for line in file.splitlines() if line.startswith("--"))
    for text in (str(comment), comments):
        assert "SHA-256" in text
        assert "{peer_mentor_id}:{scenario_rule_id}:{date_window}" in text
