"""What a Python sender holds after a push, read into an HTTP status and a body: shared by `fcm` and `apns`.

Told by its attributes, and exceptions by their names, so that none of the libraries is needed here. What the
provider said goes on as it came, for the worker to judge; where a library kept less, no more is made of it.

Sources: firebase-admin 7.7, async-firebase 6.4, PyFCM 2.1, fcm-django 3.2, aioapns 4.0, PyAPNs2 0.8 (apns2,
compat-fork-apns2), kalyke-apns 1.5, django-push-notifications 3.3, pyapns_client 2.0 and 3.0, httpx 0.28,
requests 2.34, aiohttp 3.13
"""

import re
from collections import ChainMap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError

from .events import Channel, Target

_ACCEPTED = (
    "a response of httpx, requests or urllib, (status, headers, body), a result of "
    "firebase-admin, async-firebase, PyFCM, aioapns, PyAPNs2 or django-push-notifications, or the exception "
    "that came instead"
)
_MESSAGE_NAME = re.compile(r"projects/[^/\s]+/messages/[^/\s]+")
_DIGITS = re.compile(r"[0-9]{1,3}")
_APNS_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

# PyFCM keeps the HTTP status alone, as a class.
_PYFCM = {
    "AuthenticationError": 401,
    "FCMNotRegisteredError": 404,
    "FCMSenderIdMismatchError": 403,
    "InvalidDataError": 400,
}
_PYFCM_STATUS = re.compile(r"status code (\d{3})\b")


def result(token: str, answer: object, channel: Channel, target: Target) -> dict[str, Any]:
    """The send result of one push. Raises TypeError for an answer that is none of the known forms."""
    http_status, body = read(answer)
    made = {"token": token, "http_status": http_status, "body": body, "delivery_channel": channel}
    return made if target == "token" else {**made, "target": target}


def of_each(tokens: Sequence[str], answers: object) -> list[Any]:
    """To each token its own answer, in order.

    `answers`: a list of them, an object that has one (`responses`), a mapping by token, or the one exception
    that came instead of them all. Raises ValueError where they differ in number or a token has none.
    """
    if isinstance(answers, BaseException):
        return [answers for _ in tokens]
    answers = getattr(getattr(answers, "response", answers), "responses", answers)  # fcm-django wraps it
    if isinstance(answers, Mapping) or _are_mappings(answers, tokens):
        by_token = answers if isinstance(answers, Mapping) else ChainMap(*_sequence(answers))
        if missing := sum(token not in by_token for token in tokens):
            raise ValueError(f"{missing} of {len(tokens)} tokens have no answer")
        return [by_token[token] for token in tokens]
    each = _sequence(answers)
    if len(tokens) != len(each):
        raise ValueError(f"{len(tokens)} tokens, but {len(each)} answers")
    return list(each)


def read(answer: object) -> tuple[int | None, object]:
    """HTTP status and body of one answer; None where nothing came. Raises TypeError."""
    if isinstance(answer, HTTPError | HTTPResponse):
        return _read_urllib(answer)
    if isinstance(answer, BaseException):
        return _read_error(answer)
    if hasattr(answer, "status_code") and hasattr(answer, "content"):
        return _read_response(answer)
    if hasattr(answer, "exception") and hasattr(answer, "message_id"):  # firebase-admin, async-firebase
        if answer.exception is not None:
            return _read_error(answer.exception)
        # No exception is not yet success: without a name nothing says that FCM took the push.
        return 200, {} if answer.message_id is None else {"name": answer.message_id}
    if hasattr(answer, "status") and hasattr(answer, "description"):
        return _read_aioapns(answer)
    if isinstance(answer, str):
        return _read_word(answer)
    if isinstance(answer, tuple):
        return _read_tuple(answer)
    if isinstance(answer, Mapping):
        return _read_mapping(answer)
    raise _unknown(answer)


def _read_response(response: Any) -> tuple[int, object]:
    return response.status_code, _decoded(response.content)


def _read_urllib(answer: HTTPError | HTTPResponse) -> tuple[int | None, object]:
    body = b""
    with suppress(AttributeError, HTTPException, OSError, ValueError):  # closed, or cut off
        body = answer.read()
    return (answer.status, _decoded(body)) if body else _without_body(answer.status)


def _without_body(status: int | None) -> tuple[int | None, object]:
    """What a status says alone, of an answer whose body is gone: not that a token is."""
    return (None if status in (404, 410) else status), None


def _read_error(error: BaseException) -> tuple[int | None, object]:
    for name in ("http_response", "response"):
        response = getattr(error, name, None)
        # Not a test of truth: an error's requests.Response is false.
        if hasattr(response, "status_code") and hasattr(response, "content"):
            return _read_response(response)
    kind = type(error).__name__
    match _library(error):
        case "aiohttp":
            return _without_body(_number(getattr(error, "status", None)))
        case "pyapns_client" if code := getattr(error, "status_code", None):
            return code, _said(kind.removesuffix("Exception"), getattr(error, "timestamp", None))
        case "pyfcm" if kind in _PYFCM:
            return _PYFCM[kind], str(error) if kind == "InvalidDataError" else None
        case "pyfcm" if status := _PYFCM_STATUS.search(str(error)):
            return int(status[1]), None
        case "apns2" | "kalyke":  # a class for each of APNs' reasons
            timestamp = getattr(error, "timestamp", None) or _timestamp(getattr(error, "error", None))
            return None, kind if timestamp is None else _said(kind, timestamp)
        case "push_notifications" if isinstance(status := getattr(error, "status", None), str):
            return None, status  # the name of PyAPNs2's class
    return None, None


def _library(error: BaseException) -> str:
    """The library that an exception, or what it is derived from, comes from."""
    known = {"aiohttp", "apns2", "kalyke", "push_notifications", "pyapns_client", "pyfcm"}
    packages = (cls.__module__.partition(".")[0] for cls in type(error).__mro__)
    return next((package for package in packages if package in known), "")


def _timestamp(body: object) -> object:
    return body.get("timestamp") if isinstance(body, Mapping) else None


def _read_aioapns(answer: Any) -> tuple[int | None, object]:
    # aioapns keeps what it read, not the body; a status that it did not get is empty, or a word of Django's.
    http_status = _number(answer.status)
    if http_status is None:
        return None, answer.description if answer.status else None
    return http_status, _said(answer.description, getattr(answer, "timestamp", None))


def _said(reason: object, timestamp: object) -> dict[str, object] | None:
    """APNs' body, made again."""
    said = {"reason": reason, "timestamp": timestamp}
    return {name: value for name, value in said.items() if value is not None} or None


def _read_word(word: str) -> tuple[int | None, object]:
    if _MESSAGE_NAME.fullmatch(word):  # what firebase-admin's `send` returns
        return 200, {"name": word}
    accepted = word == "Success" or _APNS_ID.fullmatch(word)  # PyAPNs2's; kalyke's
    return (200, None) if accepted else (None, word)


def _read_tuple(answer: tuple[Any, ...]) -> tuple[int | None, object]:
    match answer:
        case (str() as reason, timestamp) if reason.isalpha():  # PyAPNs2's of a 410
            return 410, {"reason": reason, "timestamp": timestamp}
        case (status, _, content) if (number := _number(status)) is not None:
            return number, _decoded(content)
    raise _unknown(answer)


def _number(status: object) -> int | None:
    """An HTTP status: a number, or its digits as HTTP/2 clients hand them over."""
    digits = str(_decoded(status)) if isinstance(status, int | str | bytes) else ""
    return int(digits) if _DIGITS.fullmatch(digits) else None


def _decoded(content: Any) -> Any:
    return content.decode(errors="replace") if isinstance(content, bytes | bytearray) else content


def _read_mapping(answer: Mapping[Any, Any]) -> tuple[int | None, object]:
    if isinstance(answer.get("name"), str):  # PyFCM's, accepted
        return 200, dict(answer)
    error = answer.get("error")
    if isinstance(error, Mapping):  # PyFCM's async form keeps the body alone; FCM repeats the status in it
        return _number(error.get("code")), dict(answer)
    if "reason" in answer:
        return None, dict(answer)
    found = answer.get("results")
    if isinstance(found, list) and len(found) == 1:  # django-push-notifications' of one device
        one = found[0]
        return read(one.get("error", one) if isinstance(one, Mapping) else one)
    raise _unknown(answer)


def _are_mappings(answers: object, tokens: Sequence[str]) -> bool:
    """Whether it is django-push-notifications' list: a mapping by token for each of its applications."""
    known = set(tokens)
    return (
        isinstance(answers, list)
        and bool(answers)
        and all(isinstance(one, Mapping) and one and known.issuperset(one) for one in answers)
    )


def _sequence(answers: object) -> Sequence[Any]:
    if isinstance(answers, Sequence) and not isinstance(answers, str | bytes):
        return answers
    raise _unknown(answers)


def _unknown(answer: object) -> TypeError:
    kind = type(answer)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return TypeError(f"cannot read an answer of type {name}; accepted: {_ACCEPTED}")


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("replies"))
