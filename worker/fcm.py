"""FCM's answers, as firebase-admin hands them over, made into send results.

Its exceptions tell less than FCM said: the class follows the first FcmError detail alone, `code` is the same
for an unregistered token and a wrong project, and APNs' own words are in neither. So the HTTP status and the
body go into the send result as they came, and the worker judges.

Sources: firebase-admin 7.7, modules `messaging` and `exceptions`; FCM error codes,
https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firebase_admin.messaging import BatchResponse, SendResponse


def results(tokens: Sequence[str], answer: "BatchResponse | BaseException") -> list[dict[str, Any]]:
    """The send results of one call of `send_each` or `send_each_for_multicast`, also of their async forms.

    `tokens`: the device tokens, in the order of the messages. `answer`: what the call returned, or the
    exception it raised. One unreadable answer makes the library raise for the whole call, though other pushes
    went out: every token then gets a result without an answer.

    Raises ValueError where tokens and answers differ in number, and as `result` does.
    """
    if isinstance(answer, BaseException):
        return [result(token, answer) for token in tokens]
    if len(tokens) != len(answer.responses):
        raise ValueError(f"{len(tokens)} tokens, but {len(answer.responses)} answers")
    return [result(token, response) for token, response in zip(tokens, answer.responses, strict=True)]


def result(token: str, answer: "SendResponse | str | BaseException") -> dict[str, Any]:
    """The send result of one message.

    `answer`: one of a BatchResponse's responses; or what `send` returned (the message's name) or raised. An
    exception that carries no answer (a timeout, a lost connection, no access token) makes a result without
    one.

    Raises a plain ValueError that is given to it: so the library refuses a message before anything is sent,
    and what was not sent has no result.
    """
    if isinstance(answer, str):
        return _result(token, 200, {"name": answer})
    if isinstance(answer, BaseException):
        error = answer
    elif answer.exception is not None:
        error = answer.exception
    else:
        # No exception is not yet success: without a name nothing says that FCM took the push.
        return _result(token, 200, {} if answer.message_id is None else {"name": answer.message_id})
    if type(error) is ValueError:
        raise error
    response = getattr(error, "http_response", None)
    if response is None:  # not a test of truth: an error's requests.Response is false
        return _result(token, None, None)
    return _result(token, response.status_code, response.content.decode(errors="replace"))


def _result(token: str, http_status: int | None, body: object) -> dict[str, Any]:
    return {"token": token, "http_status": http_status, "body": body, "delivery_channel": "fcm"}


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("fcm"))
