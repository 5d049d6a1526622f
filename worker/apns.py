"""APNs' answers, as HTTP/2 clients hand them over, made into send results.

Source: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

from collections.abc import Sequence
from typing import Any, Protocol


class Response(Protocol):
    """An answer that has been read: httpx.Response, requests.Response."""

    @property
    def status_code(self) -> int:
        """HTTP status."""

    @property
    def content(self) -> bytes:
        """The body as it came."""


class NotificationResult(Protocol):
    """aioapns' (4.0) reading of an answer."""

    #: HTTP status in digits.
    status: str
    #: APNs' `reason`; None when accepted.
    description: str | None
    #: APNs' `timestamp` in milliseconds, on 410.
    timestamp: int | None


#: Status, headers (nothing in them matters here) and body, as plain HTTP/2 clients give them; the object of a
#: client library; or the exception that came instead.
Answer = tuple[int | str | bytes, object, bytes | str | None] | Response | NotificationResult | BaseException


def results(tokens: Sequence[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The send results of one prompt's pushes.

    `tokens`: the device tokens; `answers`: to each its own, in the same order, e.g. those of
    `asyncio.gather(*pushes, return_exceptions=True)`. Raises ValueError where they differ in number.
    """
    if len(tokens) != len(answers):
        raise ValueError(f"{len(tokens)} tokens, but {len(answers)} answers")
    return [result(token, answer) for token, answer in zip(tokens, answers, strict=True)]


def result(token: str, answer: Answer) -> dict[str, Any]:
    """The send result of one push.

    An exception makes a result without an answer (the push may have gone out), unless it carries one, as
    httpx's HTTPStatusError does.
    """
    http_status, body = _read(answer)
    return {"token": token, "http_status": http_status, "body": body, "delivery_channel": "apns"}


def _read(answer: Answer) -> tuple[int | None, object]:
    if isinstance(answer, tuple):
        status, _, content = answer
        return int(status), content.decode(errors="replace") if isinstance(content, bytes) else content
    response: Any = getattr(answer, "response", None) if isinstance(answer, BaseException) else answer
    if hasattr(response, "status_code"):
        return response.status_code, response.content.decode(errors="replace")
    if isinstance(answer, BaseException):
        return None, None
    # aioapns keeps what it read, not the body; a status that it did not get is empty.
    said = {"reason": response.description, "timestamp": response.timestamp}
    body = {name: value for name, value in said.items() if value is not None}
    return int(response.status) if response.status else None, body or None


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("apns"))
