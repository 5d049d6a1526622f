"""What PostgreSQL's faults mean for a job: does it pass by itself, and what is there to do about it?"""

import re

import psycopg

from .. import NAME
from .refusals import Fault, NoConnection, known, without_quotes

# Faults that pass by themselves, by SQLSTATE class or code.
_PASSING = (
    "08",  # connection exception
    "25006",  # read-only: a failover is under way
    "25P03",  # idle in transaction too long: the network stalled
    "25P04",  # transaction_timeout, where somebody has set one
    "40",  # deadlock, serialization failure
    "53",  # out of connections, memory or disk
    "55P03",  # lock not available within lock_timeout
    "57",  # shutdown, crash recovery, cancelled by statement_timeout
    "58",  # system error, I/O
)

# In these classes a pooler answers with words of its own: connection, authorization, resources, anything.
_POOLERS = ("08", "28", "3D", "53", "57", "XX")

_REMEDIES = {
    "25006": "PostgreSQL may not write: a standby, or read-only, as Supabase makes it while the disk is full",
    "42P01": f"a table is missing: run `python -m {NAME}.migrate`, and check NOTIFLOG_TOKEN_TABLE",
    "42501": "the role of DATABASE_URL lacks a privilege or a row level security policy: "
    "log in as a member of notiflog_worker, and grant it select and delete on the token table",
    "53100": "make room on its disk",
    "57014": "it was cancelled, or took longer than the statement_timeout",
    "28P01": "wrong user or password in DATABASE_URL",
    "3D000": "the database named in DATABASE_URL does not exist",
    "0A000": "PostgreSQL cannot do that there: does follow_up_notification_log have a rule? Drop it",
}
_OF_TOKENS = "a column is missing: check NOTIFLOG_TOKEN_COLUMN and NOTIFLOG_TOKEN_REGISTERED_COLUMN"
_OF_LOG = "follow_up_notification_log lacks a column: compare it with migrations/"
#: The log table's columns that the worker writes.
LOG_COLUMNS = (
    "log_id",
    "peer_mentor_id",
    "chapter_id",
    "scenario_rule_id",
    "delivered_at",
    "delivery_channel",
    "idempotency_key",
    "status",
)
_FUNCTION = re.compile(r"function ([\w.]+)\(")


def judge(error: psycopg.Error) -> Fault:
    """What a fault means. Its text quotes no row, as PostgreSQL's own may."""
    if isinstance(error, NoConnection):
        return error.fault
    if not error.sqlstate:
        if isinstance(error, psycopg.OperationalError):
            return Fault(True, "no connection: it was lost", "check whether the server is up")
        return Fault(
            False, f"{type(error).__name__} before PostgreSQL was asked", "report it: it is a fault here"
        )
    words = without_quotes(error.diag.message_primary or "")
    if error.sqlstate.startswith(_POOLERS) and (answer := known(words)):
        passes, remedy = answer
        return Fault(
            passes, f"PostgreSQL or its pooler answers '{words}' (SQLSTATE {error.sqlstate})", remedy
        )
    diag = error.diag
    names = " ".join(filter(None, (diag.table_name, diag.column_name, diag.constraint_name)))
    text = f"{type(error).__name__} (SQLSTATE {error.sqlstate}{', ' + names if names else ''})"
    return Fault(error.sqlstate.startswith(_PASSING), text, _remedy(error))


def _remedy(error: psycopg.Error) -> str:
    if found := _FUNCTION.search(error.diag.context or ""):
        return (
            f"it is raised in function {found[1]}, of a trigger maybe: put that right, for the worker's role"
        )
    if error.sqlstate == "42703":
        quoted = re.findall(r'"(\w+)"', error.diag.message_primary or "")
        ours = {"follow_up_notification_log", *LOG_COLUMNS}
        return _OF_TOKENS if ours.isdisjoint(quoted) else _OF_LOG
    return _REMEDIES.get(error.sqlstate or "", "see the PostgreSQL log")


def is_transient(error: psycopg.Error) -> bool:
    """Whether trying again later may help. Judged by SQLSTATE: psycopg's classes mix both kinds."""
    return judge(error).passes


def explain(error: psycopg.Error) -> str:
    """A sentence for logs and job results."""
    return str(judge(error))
