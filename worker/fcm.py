"""FCM's answers, as senders in Python hold them, made into send results.

Libraries tell less than FCM said. firebase-admin's class follows the first FcmError detail alone, its `code`
is the same for an unregistered token and a wrong project, and APNs' own words are in neither. So the HTTP
status and the body go into the send result as they came, and the worker judges.

Sources: firebase-admin 7.7, modules `messaging` and `exceptions`; FCM error codes,
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode; for other libraries see `worker.replies`
"""

from collections.abc import Sequence
from typing import Any

from . import replies
from .events import Target


def results(
    tokens: Sequence[str] = (),
    answer: object = (),
    *,
    fids: Sequence[str] = (),
    target: Target = "token",
) -> list[dict[str, Any]]:
    """The send results of one call, e.g. of `send_each` or `send_each_for_multicast`, or of its async form.

    `tokens`: the registration tokens, `fids`: the Firebase installation ids, in the order of the messages; of
    both, as in a MulticastMessage, the tokens come first. `answer`: what the call returned, or the exception
    it raised; or a list, or a mapping by token, of what `result` takes. One unreadable answer makes
    firebase-admin raise for the whole call, though other pushes went out: every token then gets a result
    without an answer.

    `target="live_activity"`: the pushes to `tokens` went to the tokens of Live Activities. The end of one is
    not that of the registration, so none of `tokens` is pruned for it.

    Raises ValueError where tokens and answers differ in number, and as `result` does.
    """
    to: list[tuple[str, Target]] = [(token, target) for token in tokens]
    to += [(fid, "fid") for fid in fids]
    each = replies.of_each([address for address, _ in to], answer)
    return [result(address, one, target=kind) for (address, kind), one in zip(to, each, strict=True)]


def result(token: str, answer: object, *, target: Target = "token") -> dict[str, Any]:
    """The send result of one message.

    `answer`: one of a batch's responses; what `send` returned (the message's name) or raised; a response of
    httpx or requests, or the error around it; `(status, headers, body)`; what PyFCM returned or raised. An
    exception that carries no answer (a timeout, a lost connection, no access token) makes a result without
    one. `target`: see `results`.

    Raises a plain ValueError that is given to it: so the library refuses a message before anything is sent,
    and what was not sent has no result. Raises TypeError for anything else, naming its type.
    """
    if type(answer) is ValueError:
        raise answer
    return replies.result(token, answer, "fcm", target)


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("fcm"))
