"""APNs' answers, as senders in Python hold them, made into send results.

Source: https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns;
for the libraries see `worker.replies`
"""

from collections.abc import Sequence
from typing import Any

from . import replies
from .events import Target


def results(tokens: Sequence[str], answers: object, *, target: Target = "token") -> list[dict[str, Any]]:
    """The send results of one prompt's pushes.

    `tokens`: the device tokens. `answers`: to each its own, in the same order, e.g. those of
    `asyncio.gather(*pushes, return_exceptions=True)`; or by token, as PyAPNs2's `send_notification_batch`
    returns them. `target="live_activity"`: the pushes went to Live Activities, whose end is not that of the
    devices. Raises ValueError where they differ in number or a token has none, and as `result` does.
    """
    each = replies.of_each(tokens, answers)
    return [result(token, answer, target=target) for token, answer in zip(tokens, each, strict=True)]


def result(token: str, answer: object, *, target: Target = "token") -> dict[str, Any]:
    """The send result of one push.

    `answer`: aioapns' result; a response of httpx or requests; `(status, headers, body)`; what PyAPNs2
    returned ("Success", a reason, `("Unregistered", timestamp)`) or raised. An exception makes a result
    without an answer (the push may have gone out), unless it carries one, as httpx's HTTPStatusError does.
    `target`: see `results`. Raises TypeError for anything else, naming its type.
    """
    return replies.result(token, answer, "apns", target)


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("apns"))
