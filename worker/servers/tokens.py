"""The app's device-token tables as the environment names them, and how a token is pruned there."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple
from zoneinfo import available_timezones

CHANNELS = ("fcm", "apns")

#: What may be said of each channel's table, with what holds where nothing is said.
_DEFAULTS = {
    "TABLE": "public.device_tokens",
    "COLUMN": "token",
    "REGISTERED_COLUMN": "updated_at",
    "REGISTERED_ZONE": "",
    "PRUNE": "delete",
}
#: Every variable that is read here: for both channels, and for one.
VARIABLES = tuple(
    f"NOTIFLOG_{channel}TOKEN_{name}" for channel in ("", "FCM_", "APNS_") for name in _DEFAULTS
)

# PostgreSQL reads a bare name in lower case; what needs quotes gets them, as in SQL. NUL would cut it short.
_PART = r'(?:[a-z_][a-z0-9_]{0,62}|"(?:[^"\x00]|"")+")'
_TABLE = re.compile(rf"{_PART}(?:\.{_PART})?")
_COLUMN = re.compile(_PART)
_COLUMNS = re.compile(rf"{_PART}(?: *, *{_PART})*")
_PRUNE = re.compile(rf"delete|{_PART}=(?:false|true|now|null)")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
_LONGEST = 63  # bytes; the server would cut a longer name short
_RULE = 'lower-case letters, digits and underscores, at most 63, or anything in double quotes ("updatedAt")'
_PRUNE_FORMS = "delete, or COLUMN=false, COLUMN=true, COLUMN=now or COLUMN=null with a column name"


class Mark(NamedTuple):
    """What is done to a dead token's row instead of deleting it."""

    column: str
    value: Literal["false", "true", "now", "null"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTable:
    """One channel's token table. Names as they stand in the catalog, without quotes."""

    #: (schema, table), or (table,) to be found on the role's search path.
    table: tuple[str, ...] = ("public", "device_tokens")
    #: The column holding the FCM registration token or APNs device token.
    column: str = "token"
    #: When the device last registered that token, of several the newest; none: no guard is possible.
    registered: tuple[str, ...] = ("updated_at",)
    #: The time zone of registration times that carry none; None: nobody said.
    zone: str | None = None
    #: None: the row is deleted.
    mark: Mark | None = None

    def __str__(self) -> str:
        return ".".join(self.table)


def read_token_tables(environ: Mapping[str, str], problems: list[str]) -> dict[str, TokenTable]:
    """The token table of each channel.

    Adds a sentence to `problems` for every variable that is wrong, with the remedy and without its value.
    """
    return {channel: _read(environ, channel, problems) for channel in CHANNELS}


def _read(environ: Mapping[str, str], channel: str, problems: list[str]) -> TokenTable:
    def look_up(name: str, is_good: Callable[[str], object], expected: str) -> str:
        own, common = f"NOTIFLOG_{channel.upper()}_TOKEN_{name}", f"NOTIFLOG_TOKEN_{name}"
        variable = own if own in environ else common
        value = environ.get(variable, _DEFAULTS[name])
        if is_good(value) and _short(value):
            return value
        problem = f"{variable} must be {expected}"
        if problem not in problems:  # the common ones are read for each channel
            problems.append(problem)
        return _DEFAULTS[name]

    table = look_up("TABLE", _TABLE.fullmatch, f"table or schema.table, each {_RULE}")
    column = look_up("COLUMN", _COLUMN.fullmatch, f"a column name: {_RULE}")
    registered = look_up(
        "REGISTERED_COLUMN",
        lambda value: not value or _COLUMNS.fullmatch(value),
        f"a column name, or several with commas between them ({_RULE}), or empty when the table has none",
    )
    zone = look_up("REGISTERED_ZONE", _is_zone, "a time zone like UTC or America/New_York, or empty")
    prune = look_up("PRUNE", _PRUNE.fullmatch, f"{_PRUNE_FORMS}: {_RULE}")
    return TokenTable(
        table=_names(table),
        column=_names(column)[0],
        registered=_names(registered),
        zone=zone or None,
        mark=_mark(prune),
    )


def _is_zone(value: str) -> bool:
    zones = available_timezones()  # none where the machine has no time zone database
    return not value or (value in zones if zones else bool(_ZONE.fullmatch(value)))


def _mark(prune: str) -> Mark | None:
    if prune == "delete":
        return None
    column, _, value = prune.rpartition("=")
    return Mark(_names(column)[0], value)  # type: ignore[arg-type]  # its form is checked


def _names(text: str) -> tuple[str, ...]:
    """The names in a dotted or comma-separated text whose form is checked."""
    return tuple(
        part[1:-1].replace('""', '"') if part[0] == '"' else part for part in re.findall(_PART, text)
    )


def _short(text: str) -> bool:
    try:
        return all(len(name.encode()) <= _LONGEST for name in _names(text))
    except UnicodeEncodeError:  # a lone surrogate
        return False
