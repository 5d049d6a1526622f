"""What the catalogs hold and should not, or lack and should have, whatever a ledger claims is applied.

A restored dump gives its tables the default grants of the new database, which may be everything to everybody,
and comes without roles; a ledger says what it was told. So nothing is believed that can be looked up.
"""

from pathlib import Path
from typing import NamedTuple

import psycopg

from .. import NAME

_QUESTIONS = ";".join(Path(__file__).with_name(f"{name}.sql").read_text() for name in ("exposed", "missing"))

#: What helps.
REMEDY = f"run `python -m {NAME}.migrate` as the owner of the database"


class Drift(NamedTuple):
    """What the catalogs hold and should not, and what they lack; each thing as a phrase."""

    #: "anon may select, truncate on public.follow_up_notification_log"
    exposed: list[str]
    #: Of all the migrations, whether or not they are applied: "role notiflog_worker".
    missing: list[str]


def look(connection: psycopg.Connection) -> Drift:
    """Compare in one round trip, within the caller's transaction, which must be sealed. Any role may look."""
    cursor = connection.execute(_QUESTIONS.encode())
    exposed = [f"{role} may {privileges} {thing}" for role, thing, privileges in cursor]
    cursor.nextset()
    return Drift(exposed, [thing for (thing,) in cursor])
