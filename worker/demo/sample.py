"""A made-up app with mentors, devices and a scheduler's week of send results, for the demo and the tests.

Everything follows from the seed, so that two runs can be compared.
"""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

#: When the made-up prompts were sent.
SENT_AT = datetime(2026, 11, 16, 6, 0, tzinfo=UTC)
REGISTERED_AT = SENT_AT - timedelta(days=30)
REGISTERED_AGAIN_AT = SENT_AT + timedelta(hours=2)

_FCM_TYPE = "type.googleapis.com/google.firebase.fcm.v1."


class Device(NamedTuple):
    """One row of the app's token table."""

    token: str
    channel: str
    user: UUID


class App(NamedTuple):
    """What the app has before the first prompt is sent."""

    users: list[UUID]
    chapters: list[UUID]
    rules: list[UUID]


def fcm_error(http: int, status: str, message: str, **details: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """An error answer of FCM's v1 API; `details` by the last part of their @type."""
    error: dict[str, Any] = {"code": http, "message": message, "status": status}
    if details:
        error["details"] = [{"@type": _FCM_TYPE + name, **fields} for name, fields in details.items()]
    return http, {"error": error}


_NOT_FOUND = "Requested entity was not found."
_HTML = "<!DOCTYPE html><html><title>Error</title><p>The server encountered a temporary error.</html>"

#: What FCM says of a token that is none of its project's, though it be alive.
UNREGISTERED = fcm_error(404, "NOT_FOUND", _NOT_FOUND, FcmError={"errorCode": "UNREGISTERED"})

#: Answers that are no success, with their weight among a hundred failures.
FCM_FAILURES: list[tuple[int, tuple[int | None, Any]]] = [
    (30, UNREGISTERED),
    (10, fcm_error(404, "NOT_FOUND", _NOT_FOUND)),
    (
        8,
        fcm_error(
            400,
            "INVALID_ARGUMENT",
            "APNs device token is disabled.",
            FcmError={"errorCode": "INVALID_ARGUMENT"},
            ApnsError={"statusCode": 410, "reason": "Unregistered"},
        ),
    ),
    (6, fcm_error(404, "NOT_FOUND", "Project 'example' was not found or has no FCM API enabled.")),
    (
        8,
        fcm_error(
            403, "PERMISSION_DENIED", "SenderId mismatch", FcmError={"errorCode": "SENDER_ID_MISMATCH"}
        ),
    ),
    (
        10,
        fcm_error(
            400,
            "INVALID_ARGUMENT",
            "The registration token is not a valid FCM registration token",
            FcmError={"errorCode": "INVALID_ARGUMENT"},
        ),
    ),
    (
        10,
        fcm_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", FcmError={"errorCode": "QUOTA_EXCEEDED"}),
    ),
    (8, fcm_error(503, "UNAVAILABLE", "The service is unavailable.", FcmError={"errorCode": "UNAVAILABLE"})),
    (6, (502, _HTML)),
    (4, (None, None)),
]
APNS_FAILURES: list[tuple[int, tuple[int | None, Any]]] = [
    (40, (410, {"reason": "Unregistered", "timestamp": int(SENT_AT.timestamp() * 1000) - 3_600_000})),
    (10, (410, {"reason": "ExpiredToken", "timestamp": int(SENT_AT.timestamp() * 1000) - 60_000})),
    (15, (400, {"reason": "BadDeviceToken"})),
    (8, (400, {"reason": "DeviceTokenNotForTopic"})),
    (5, (404, {"reason": "BadPath"})),
    (7, (403, {"reason": "ExpiredProviderToken"})),
    (10, (429, {"reason": "TooManyRequests"})),
    (5, (503, {"reason": "ServiceUnavailable"})),
]


def make_app(connection: psycopg.Connection, *, users: int = 400, seed: int = 1) -> App:
    """Fill the app's tables with `users` peer mentors, 20 chapters and 6 scenario rules."""
    ids = random.Random(seed)  # noqa: S311 - made-up data

    def make(n: int) -> list[UUID]:
        return [UUID(int=ids.getrandbits(128), version=4) for _ in range(n)]

    app = App(make(users), make(20), make(6))
    for table, rows in zip(("users", "chapters", "scenario_rules"), app, strict=True):
        connection.execute(f"insert into public.{table} select unnest(%b::uuid[])", [rows])
    return app


class Scheduler:
    """Makes up the events of one week of prompts, and the devices they were sent to.

    `wrong_project`: somebody gave the sender another Firebase project, which knows none of the tokens.
    """

    def __init__(self, app: App, seed: int = 1, *, wrong_project: bool = False) -> None:
        self.app = app
        self.wrong_project = wrong_project
        self.random = random.Random(seed)  # noqa: S311 - made-up data
        self._mistakes = 0
        self.devices: list[Device] = []
        #: Devices that register again after the send: their old answers must not cost them their token.
        self.registered_again: set[str] = set()

    def events(self, n: int) -> list[dict[str, Any]]:
        """`n` events in the order of sending: most delivered, some of every other kind, some wrong."""
        made: list[dict[str, Any]] = []
        for number in range(n):
            event = self._event(number)
            kind = self.random.random()
            if kind < 0.015 and made:
                event = dict(self.random.choice(made))  # reported twice
            elif kind < 0.018 and made:
                event = {**self.random.choice(made), "results": [], "skipped": "quiet_hours"}  # contradicts
            elif kind < 0.028:
                event = {key: value for key, value in event.items() if key != "skipped"}
                event |= {"final": False, "results": [self._failed("fcm")]}
            elif kind < 0.034:
                event = self._malformed(event)
            made.append(event)
        return made

    def good_events(self, n: int, window: str) -> list[dict[str, Any]]:
        """`n` events that all can be recorded, with keys of their own for each `window`."""
        return [self._event(number) | {"date_window": f"{window}-{number}"} for number in range(n)]

    def insert_devices(self, connection: psycopg.Connection) -> None:
        """Write the devices that the made-up events were sent to into the app's token table."""
        with connection.cursor().copy("copy public.device_tokens from stdin") as copy:
            for device in self.devices:
                again = device.token in self.registered_again
                copy.write_row((device.token, device.user, REGISTERED_AGAIN_AT if again else REGISTERED_AT))

    def _event(self, number: int) -> dict[str, Any]:
        user = self.random.choice(self.app.users)
        channel = "fcm" if self.random.random() < 0.6 else "apns"
        event: dict[str, Any] = {
            "peer_mentor_id": str(user),
            "chapter_id": str(self.random.choice(self.app.chapters)),
            "scenario_rule_id": str(self.random.choice(self.app.rules)),
            "date_window": f"2026-W47-{number}",
            "delivery_channel": channel,
            "attempted_at": (SENT_AT + timedelta(milliseconds=number)).isoformat(),
        }
        kind = self.random.random()
        if kind < 0.08:
            return event | {"skipped": self.random.choice(["quiet_hours", "opted_out", "no_device"])}
        results = [self._failed(channel, user) if kind < 0.22 else self._accepted(channel, user)]
        if self.random.random() < 0.15:  # a second device of the same mentor
            results.append(self._failed("fcm", user) if kind > 0.9 else self._accepted("fcm", user))
        return event | {"results": results}

    def _device(self, channel: str, user: UUID | None) -> dict[str, Any]:
        """A new device, as a result names it; of FCM's, every other one by its installation id."""
        token, target = f"{self.random.getrandbits(256):064x}", "token"
        if channel == "fcm" and len(self.devices) % 2:
            token, target = f"f{token[:21]}", "fid"
        elif channel == "fcm":
            token = f"f{token[:21]}:APA91b{token}{token[::-1]}"
        self.devices.append(Device(token, channel, user or self.app.users[0]))
        return {"token": token} if target == "token" else {"token": token, "target": target}

    def _accepted(self, channel: str, user: UUID) -> dict[str, Any]:
        if self.wrong_project and channel == "fcm":
            return self._failed(channel, user)
        name = f"projects/example/messages/{self.random.getrandbits(64):x}"
        return {
            **self._device(channel, user),
            "delivery_channel": channel,
            "http_status": 200,
            "body": {"name": name} if channel == "fcm" else None,
        }

    def _failed(self, channel: str, user: UUID | None = None) -> dict[str, Any]:
        answers = FCM_FAILURES if channel == "fcm" else APNS_FAILURES
        weights = [weight for weight, _ in answers]
        status, body = self.random.choices([answer for _, answer in answers], weights)[0]
        if self.wrong_project and channel == "fcm":
            status, body = UNREGISTERED
        device = self._device(channel, user)
        if self.random.random() < 0.1:
            self.registered_again.add(device["token"])
        return {**device, "delivery_channel": channel, "http_status": status, "body": body}

    def _malformed(self, event: dict[str, Any]) -> dict[str, Any]:
        self._mistakes += 1
        match self._mistakes % 6:
            case 1:
                return event | {"delivery_channel": "sms"}
            case 0:
                return event | {"attempted_at": "2026-11-16T06:00:00"}
            case 2:
                return event | {"peer_mentor_id": "mentor-17"}
            case 3:
                return event | {"results": [{"token": "", "http_status": 200}], "skipped": None}
            case 4:
                return event | {"scenario_rule_id": str(UUID(int=self.random.getrandbits(128), version=4))}
            case _:
                return {key: value for key, value in event.items() if key != "date_window"}
