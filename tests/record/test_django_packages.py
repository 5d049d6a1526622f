"""The token tables of fcm-django and django-push-notifications, made by their own migrations."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests import make
from worker.demo import sample, sandbox
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.findings import database_findings
from worker.servers.postgres import connect
from worker.servers.settings import Settings, read_settings

COMMON = {
    "NOTIFLOG_TOKEN_COLUMN": "registration_id",
    "NOTIFLOG_TOKEN_REGISTERED_COLUMN": "date_created",
    "NOTIFLOG_TOKEN_PRUNE": "active=false",
}
FCM_DJANGO = COMMON | {"NOTIFLOG_TOKEN_TABLE": "fcm_django_fcmdevice"}
PUSH_NOTIFICATIONS = COMMON | {
    "NOTIFLOG_FCM_TOKEN_TABLE": "push_notifications_gcmdevice",
    "NOTIFLOG_APNS_TOKEN_TABLE": "push_notifications_apnsdevice",
}
HEXADECIMAL = "00FC13ADFF785122"

#: Statements that register devices a month ago, by table.
DEVICES = {
    "fcm_django_fcmdevice": "(registration_id, type, active, date_created) values (%s, 'android', true, %s)",
    "push_notifications_gcmdevice": "(registration_id, cloud_message_type, active, date_created,"
    " application_id) values (%s, 'FCM', true, %s, '')",
    "push_notifications_apnsdevice": "(registration_id, active, date_created, application_id)"
    " values (%s, true, %s, '')",
}


@pytest.fixture
def django(database: str, postgres: sandbox.Postgres) -> str:
    """A database with both packages' tables, and a device in each of them: "dead"; for APNs, hexadecimal."""
    script = Path(__file__).with_name("django_tables.py")
    name = str(conninfo_to_dict(database)["dbname"])
    where = [str(postgres.directory), str(postgres.port), name, postgres.superuser]
    subprocess.run([sys.executable, script, *where], check=True, timeout=120)
    with psycopg.connect(database, autocommit=True) as connection:
        for table, columns in DEVICES.items():
            token = HEXADECIMAL if "apns" in table else "dead"
            connection.execute(f"insert into {table} {columns}".encode(), [token, "2026-10-16T06:00Z"])
    return database


def active(database: str, table: str) -> list[bool]:
    with psycopg.connect(database) as connection:
        query = sql.SQL("select active from {}").format(sql.Identifier(table))
        return [on for (on,) in connection.execute(query)]


def run(settings: Settings, app: sample.App, channel: str, token: str) -> dict[str, int]:
    gone = make.result(token, http_status=410, body={"reason": "Unregistered"})
    results = [make.unregistered(token) if channel == "fcm" else gone]
    with connect(settings.database_url) as connection:
        assert [
            str(each) for each in database_findings(connection, settings) if each.level == "problem"
        ] == []
        batch = judge([make.event(app, delivery_channel=channel, results=results)])
        (report,) = record(connection, Tokens(settings), [batch])
    return report.summary


@pytest.mark.parametrize(
    ("package", "channel", "token", "table"),
    [
        pytest.param(FCM_DJANGO, "fcm", "dead", "fcm_django_fcmdevice", id="fcm-django"),
        pytest.param(
            PUSH_NOTIFICATIONS,
            "fcm",
            "dead",
            "push_notifications_gcmdevice",
            id="django-push-notifications, FCM",
        ),
        pytest.param(
            PUSH_NOTIFICATIONS,
            "apns",
            HEXADECIMAL.lower(),
            "push_notifications_apnsdevice",
            id="django-push-notifications, APNs, in lower case",
        ),
    ],
)
def test_a_dead_device_is_marked_inactive_and_no_other(
    django: str, app: sample.App, package: dict[str, str], channel: str, token: str, table: str
) -> None:
    summary = run(read_settings({"DATABASE_URL": django, **package}), app, channel, token)
    assert (summary["pruned"], summary["refused"], summary["absent"]) == (1, 0, 0)
    assert {name: active(django, name) for name in DEVICES} == {name: [name != table] for name in DEVICES}
