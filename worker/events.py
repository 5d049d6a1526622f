"""The wire contract: a job's payload in, checked `Event`s out. Pure; knows no provider and no database."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

Channel = Literal["fcm", "apns"]
#: What a push was addressed to: a registration or device token; a Firebase installation id; or the token of a
#: Live Activity, which is not the registration that FCM's message names beside it.
Target = Literal["token", "fid", "live_activity"]
Time = Annotated[datetime, Meta(tz=True)]

_T = TypeVar("_T")


# `gc=False`: nothing in them refers back to them, so the collector need not follow thousands.
class SendResult(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """One provider's answer about one device token."""

    #: FCM registration token, Firebase installation id or APNs device token: what the app's table holds.
    #: Personal: never logged, never in an error.
    token: Annotated[str, Meta(min_length=1, max_length=4096)]
    #: HTTP status of the answer; None: there was none (timeout, connection lost).
    http_status: Annotated[int, Meta(ge=-1, le=999)] | None
    #: The answer as it came: decoded JSON, raw text, or None.
    body: Any = None
    #: When the push was sent; None: at the event's attempted_at.
    sent_at: Time | None = None
    #: The provider asked; None: the event's.
    delivery_channel: Channel | None = None
    #: What the push was addressed to; None: a token.
    target: Target | None = "token"

    def __post_init__(self) -> None:
        _check_text("token", self.token)
        if self.sent_at is not None:
            _check_time("sent_at", self.sent_at)


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What became of one prompt to one peer mentor."""

    peer_mentor_id: UUID
    chapter_id: UUID
    scenario_rule_id: UUID
    delivery_channel: Channel
    #: When the scheduler tried; becomes `delivered_at`.
    attempted_at: Time
    #: The row's unique key, or ...
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    #: ... the period the prompt belongs to, e.g. "2026-W47", to make the key of.
    date_window: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    #: One per device token; empty: nothing was sent.
    results: list[SendResult] | None = None
    #: Why nothing was sent, e.g. "quiet_hours".
    skipped: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    #: False: the sender will try again; tokens are pruned, but no row is written yet.
    final: bool = True
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        _check_time("attempted_at", self.attempted_at)
        if (self.date_window is None) == (self.idempotency_key is None):
            raise ValueError("exactly one of idempotency_key and date_window is needed")
        if self.idempotency_key is not None:
            _check_text("idempotency_key", self.idempotency_key)
        if self.date_window is not None:
            _check_text("date_window", self.date_window)
        if self.skipped is not None:
            _check_text("skipped", self.skipped)
            if self.results:
                raise ValueError("skipped: cannot stand together with results")

    @property
    def key(self) -> str:
        """The row's unique key, as given or made of ids and date_window."""
        if self.idempotency_key is not None:
            return self.idempotency_key
        return idempotency_key(self.peer_mentor_id, self.scenario_rule_id, self.date_window or "")


class InvalidEvent(Exception):
    """A payload that is not an event: where it is wrong and how, without its values."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class Rejected(NamedTuple):
    """An event that could not be recorded, by its place in the job."""

    position: int
    path: str
    problem: str

    def __str__(self) -> str:
        return f"[{self.position}] {self.path}: {self.problem}"


def idempotency_key(peer_mentor_id: UUID, scenario_rule_id: UUID, date_window: str) -> str:
    """Hex SHA-256 of `{peer_mentor_id}:{scenario_rule_id}:{date_window}`, ids in canonical lower case."""
    # msgspec writes a UUID in a quarter of the time that str() takes.
    mentor, rule = _to_json(peer_mentor_id)[1:-1], _to_json(scenario_rule_id)[1:-1]
    return hashlib.sha256(b"%b:%b:%b" % (mentor, rule, date_window.encode())).hexdigest()


def decode(payload: object) -> Event:
    """Check one payload of the wire contract. Raises InvalidEvent."""
    return _convert(payload, Event)


def decode_good(payloads: Sequence[object]) -> list[Event]:
    """Check payloads in one call, in half the time. Raises InvalidEvent for the first that is bad."""
    return _convert(payloads, list[Event])


def decode_all(payloads: Sequence[object]) -> tuple[list[tuple[int, Event]], list[Rejected]]:
    """Check a job's payloads; the good ones keep their position, the bad ones say what is wrong with them."""
    with suppress(InvalidEvent):  # usually all are good
        return list(enumerate(decode_good(payloads))), []
    events: list[tuple[int, Event]] = []
    rejected: list[Rejected] = []
    for position, payload in enumerate(payloads):
        try:
            events.append((position, decode(payload)))
        except InvalidEvent as invalid:
            rejected.append(Rejected(position, invalid.path, invalid.problem))
    return events, rejected


def _convert(payload: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise InvalidEvent(*_explain(str(error))) from None
    except UnicodeEncodeError:  # from a field's name, an id, a time or a channel
        raise InvalidEvent("$", _SURROGATE) from None


_to_json = msgspec.json.Encoder().encode

_SURROGATE = "contains a lone surrogate, so it is not valid Unicode"


def _check_text(field: str, text: str) -> None:
    # PostgreSQL stores neither NUL nor lone surrogates, and one such value would fail the whole batch.
    if "\0" in text:
        raise ValueError(f"{field}: contains a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{field}: {_SURROGATE}") from None


def _check_time(field: str, time: datetime) -> None:
    # Also keeps out what PostgreSQL stores and Python cannot read back (year 9999 at -14:00).
    if not 2000 <= time.year <= 2100:
        raise ValueError(f"{field}: year must be within 2000..2100")


_LOCATED = re.compile(r"(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_OWN_FIELD = re.compile(r"(?P<field>[a-z_]+): (?P<problem>.*)", re.DOTALL)
_UNKNOWN_FIELD = re.compile(
    r"Object contains unknown field `(?P<field>.*?)`(?: - at `\$(?P<path>\.results\[\d+\])`)?", re.DOTALL
)
_EXPECTED = {"version": "1", "target": "'token', 'fid' or 'live_activity'"}
_EXPECTED_CHANNEL = "'fcm' or 'apns'"
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z_]{0,31}")


def _explain(message: str) -> tuple[str, str]:
    """Split a validation message into path and problem, leaving out whatever the producer sent."""
    if unknown := _UNKNOWN_FIELD.fullmatch(message):
        # The name is the producer's: it may look like a path, or, where events are keyed by it, be a token.
        # Name only what looks like a field.
        name = unknown["field"]
        problem = f"unknown field `{name}`" if _PLAIN_NAME.fullmatch(name) else "unknown field"
        return f"${unknown['path'] or ''}", problem
    located = _LOCATED.fullmatch(message)
    path, problem = (located["path"] or "", located["problem"]) if located else ("", "is not valid")
    if located and located["key"]:
        return f"${path}", "field names must be strings"
    if own := _OWN_FIELD.fullmatch(problem):
        return f"${path}.{own['field']}", own["problem"]
    if problem.startswith("Invalid enum value"):
        return f"${path}", f"expected {_EXPECTED.get(path.rpartition('.')[2], _EXPECTED_CHANNEL)}"
    if path.endswith(("_id", "_at")) and problem.startswith("Invalid"):
        kind = "a UUID" if path.endswith("_id") else "an RFC 3339 time with an offset"
        return f"${path}", f"expected {kind}"
    return f"${path}", problem[:1].lower() + problem[1:]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one event, made of the types above.

    Besides, `decode` refuses NUL and lone surrogates in texts, and times without offset or outside
    2000..2100.
    """
    schema = msgspec.json.schema(Event)
    schema["$defs"]["Event"] |= {
        "oneOf": [
            {"required": [name], "properties": {name: {"type": "string"}}}
            for name in ("idempotency_key", "date_window")
        ],
        "not": {
            "required": ["skipped", "results"],
            "properties": {"skipped": {"type": "string"}, "results": {"type": "array", "minItems": 1}},
        },
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    import click  # not on a job's path

    from .command import Command, say

    @click.command("events", cls=Command)
    @click.option("--schema", is_flag=True, required=True, help="print the JSON Schema of one event")
    def events(*, schema: bool) -> int:
        """The wire contract as data."""
        say(json.dumps(json_schema(), indent=2))
        return 0

    return events(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
