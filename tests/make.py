"""Payloads of the wire contract, for tests: each a good event but for what a test changes."""

from typing import Any
from uuid import UUID

from worker.demo import sample

SENT_AT = "2026-11-16T06:00:00Z"


def event(app: sample.App, number: int = 0, **changes: Any) -> dict[str, Any]:
    """A delivered FCM event; events of different `number` have different keys and tokens."""
    return {
        "peer_mentor_id": str(app.users[number % len(app.users)]),
        "chapter_id": str(app.chapters[0]),
        "scenario_rule_id": str(app.rules[0]),
        "idempotency_key": f"key-{number}",
        "delivery_channel": "fcm",
        "attempted_at": SENT_AT,
        "results": [result(token=f"token-{number}")],
        **changes,
    }


def result(token: str = "token", **changes: Any) -> dict[str, Any]:  # noqa: S107 - not a password
    """An accepted FCM send result."""
    return {"token": token, "http_status": 200, "body": {"name": "projects/p/messages/1"}, **changes}


def unregistered(token: str = "token", **changes: Any) -> dict[str, Any]:  # noqa: S107 - not a password
    """FCM's answer for a token that is dead."""
    error = {"details": [{"errorCode": "UNREGISTERED"}]}
    return result(token, http_status=404, body={"error": error}, **changes)


def stranger() -> str:
    """An id that no table knows."""
    return str(UUID(int=1))
