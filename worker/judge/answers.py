"""Read a provider's raw answer, whatever its shape, into the few facts the classification asks for.

Nothing here raises: an answer may be JSON, JSON as text, an HTML page of some proxy, an empty string, a bare
code that a reporter kept instead of the body, a library's own error, or anything else.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from .apns_words import apns_words
from .bodies import Shape, read_body
from .spellings import (
    FCM_CODES,
    RPC_HTTP,
    SAID_OF_ANY_404,
    canonical,
    says_nothing_more,
    says_token_is_dead,
)

_NOTHING: frozenset[str] = frozenset()
_NO_CODE = (None, "", "UNSPECIFIED_ERROR")
_MESSAGE_IDS = ("messageId", "MessageID", "MessageId")
_SUCCEEDED = ("success", "Success", "IsSuccess")
_MESSAGE_NAME = re.compile(r"projects/[^/\s]+/messages/[^/\s]+")
# What an error of FCM's consists of, and where others put its code.
_ON_THE_WIRE = frozenset({"code", "status", "message", "details", "errors"})
_SAID = ("message", "reason", "field", "description")
_PLACES = (
    *("messagingErrorCode", "messaging_error_code", "MessagingErrorCode"),
    *("errorCode", "error_code", "ErrorCode"),
    *("code", "Code"),
)
_RPC_ONLY = RPC_HTTP.keys() - FCM_CODES
# "UnregisteredError: Requested entity was not found.", "UnregisteredError('NotRegistered')".
_PRINTED = re.compile(r"""(?P<name>[\w./\\-]+)(?:: ?|\(['"])(?P<message>.*?)(?:['"],?\))?""", re.DOTALL)
_APNS_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
# The reason alone, or behind its status ("410 Unregistered", "410/Unregistered"), the name of Python's class
# for it ("apns2.errors.Unregistered"), Java's "Optional[Unregistered]".
_APNS_WORD = re.compile(
    r"(?:(?P<status>[1-5]\d\d)[ /])?(?:(?=[a-z_.\d]*apns)(?:[a-z_]\w*\.)+)?(?P<optional>Optional\[)?"
    r"(?P<reason>[A-Za-z]+)(?(optional)\])"
)


class FcmAnswer(Struct, frozen=True, gc=False):
    """What an FCM HTTP v1 answer says."""

    status: int | None
    shape: Shape
    #: `name` of an accepted message.
    name: str = ""
    #: google.rpc status of the error: "NOT_FOUND", ...
    rpc: str = ""
    #: errorCode of every FcmError detail, without the meaningless UNSPECIFIED_ERROR; or what stands for one.
    codes: frozenset[str] = frozenset()
    #: statusCode and reason of every nested ApnsError.
    apns: frozenset[tuple[int | None, str]] = frozenset()
    #: The answer's words, lower case: message, field violations, reasons; or the text that it is.
    says: str = ""
    #: The answer says "not found" or "gone", and not one thing beyond it that could be the cause.
    bare: bool = False


class ApnsAnswer(Struct, frozen=True, gc=False):
    """What an APNs answer says."""

    status: int | None
    shape: Shape
    reason: str = ""
    #: When APNs confirmed that the token was no longer valid (only on 410).
    dead_since: datetime | None = None


def read_fcm(status: int | None, body: object) -> FcmAnswer:
    """Read an answer of FCM's v1 API. `status`: HTTP status, None when there was no answer."""
    status, shape, value = read_body(status, body)
    if shape == "text":
        return _read_fcm_text(status, value)
    if shape != "object":
        return FcmAnswer(status, shape)
    if "error" not in value:
        return _read_without_error(status, value)
    error = value["error"]
    if isinstance(error, dict):
        return _read_error(status, error, alone=len(value) == 1)
    return _read_word(status, error, "") or FcmAnswer(status, "odd")  # FCM's legacy API puts its code there


def _read_without_error(status: int | None, value: dict[Any, Any]) -> FcmAnswer:
    """An accepted message; or an error out of its wrapping, FCM's or a library's own."""
    name = _text(value.get("name"))
    if not value or (name and len(value) == 1):
        return FcmAnswer(status, "object", name=name, bare=not value)
    if sent := _sent(value):
        return FcmAnswer(status, "object", name=sent)
    if _text(value.get("status")) in RPC_HTTP and value.keys() <= _ON_THE_WIRE:
        return _read_error(status, value, alone=True)
    error = value.get("errorInfo", value)  # Node's error as JSON
    if isinstance(error, dict) and _codes_beside(error):
        return _read_error(status, error, alone=False)
    return FcmAnswer(status, "object", name=name)


def _sent(value: dict[Any, Any]) -> str:
    """The name of an accepted message in firebase-admin's result for Node, Java, Go or .NET; else nothing."""
    filled = {key: item for key, item in value.items() if item is not None}
    named = [_text(filled.pop(key)) for key in _MESSAGE_IDS if key in filled]
    fine = all(key in _SUCCEEDED and item is True for key, item in filled.items())
    return named[0] if len(named) == 1 and fine else ""


def _read_error(status: int | None, error: dict[Any, Any], *, alone: bool) -> FcmAnswer:
    """`alone`: nothing stands beside the error that could come from something in between."""
    details = _list(error.get("details"))
    objects = [detail for detail in details if isinstance(detail, dict)]
    fcm = [_field(detail, "errorCode", "error_code") for detail in objects if _is_type(detail, "FcmError")]
    apns = [detail for detail in objects if _is_type(detail, "ApnsError")]
    codes = frozenset(code for code in fcm if isinstance(code, str) and code) - {"UNSPECIFIED_ERROR"}
    rpc = _text(error.get("status"))
    if named := _codes_beside(error):
        codes |= named - _RPC_ONLY
        rpc = min(named & _RPC_ONLY, default=rpc)
    silent = (
        alone
        and not codes
        and len(fcm) == len(details)
        and all(code in _NO_CODE for code in fcm)
        and _names_no_cause(error, status)
    )
    bare = silent and says_nothing_more(error.get("message", ""))
    if silent and not bare:
        codes = _codes_in_message(error, status)
    return FcmAnswer(
        status or _http_status(error, rpc),
        "object",
        rpc=rpc,
        codes=codes,
        apns=frozenset(
            (_number(_field(d, "statusCode", "status_code")), _text(d.get("reason"))) for d in apns
        ),
        says=_words(error, objects, _SAID if not named else (*_SAID, *_PLACES)),
        bare=bare,
    )


def _words(error: dict[Any, Any], details: list[dict[Any, Any]], keys: tuple[str, ...]) -> str:
    said = [error, *details, *(violation for detail in details for violation in _violations(detail))]
    return " ".join([_text(part.get(key)) for part in said for key in keys]).lower()


def _codes_beside(error: dict[Any, Any]) -> frozenset[str]:
    """The codes that stand directly in an error, where reporters and other libraries put them."""
    rpc = _text(error.get("status"))
    if rpc in RPC_HTTP and error.keys() <= _ON_THE_WIRE and not isinstance(error.get("code"), str):
        return _NOTHING
    message = error.get("message", "")
    words = [(place, _text(error.get(place))) for place in _PLACES]
    found = {_code(place, word, message) for place, word in words if word not in _NO_CODE}
    found.add(canonical(rpc) if rpc not in RPC_HTTP else None)
    names = frozenset(name for name in found if name)
    # Two levels of one error: .NET's and Java's ErrorCode is google.rpc's.
    return names - RPC_HTTP.keys() or names


def _code(place: str, word: str, message: object) -> str | None:
    if word.endswith(SAID_OF_ANY_404) and not _agrees(message):
        return "NOT_FOUND"
    # An unknown code is one, too; but other libraries put whatever they like into `code`.
    unknown = word if place not in ("code", "Code") or word.startswith("messaging/") else None
    return canonical(word) or unknown


def _codes_in_message(error: dict[Any, Any], status: int | None) -> frozenset[str]:
    """What a message stands for: FCM v1 has come to say "NotRegistered" of an unregistered token."""
    message = error.get("message", "")
    if (name := canonical(_text(message))) in FCM_CODES:
        return frozenset((name,))
    not_found = (status or _number(error.get("code")) or 404) in (404, 410)
    return frozenset(("UNREGISTERED",)) if not_found and says_token_is_dead(message) else _NOTHING


def _names_no_cause(error: dict[Any, Any], status: int | None) -> bool:
    """Whether an error says "not found" and, but perhaps for its message, gives no cause."""
    return (
        error.keys() <= _ON_THE_WIRE
        and (not status or "code" not in error or _number(error["code"]) == status)
        and error.get("status", "NOT_FOUND") == "NOT_FOUND"
        and all(
            isinstance(item, dict) and item.get("reason") == "notFound" for item in _list(error.get("errors"))
        )
        and ("code" in error or "status" in error or "message" in error)
    )


def _http_status(error: dict[Any, Any], rpc: str) -> int | None:
    """The HTTP status that the reporter left out; none for "not found", of which too much would follow."""
    code = _number(error.get("code"))
    return RPC_HTTP.get(rpc) or (code if code and 400 <= code < 600 and code not in (404, 410) else None)


def _read_fcm_text(status: int | None, text: str) -> FcmAnswer:
    # Reporters that keep one word of the answer instead of its body, or what a library prints.
    if answer := _read_word(status, text, ""):
        return answer
    if text.rstrip(".").casefold() == "requested entity was not found":
        return FcmAnswer(status, "object", rpc="NOT_FOUND", bare=True)
    if status in (404, 410) and says_token_is_dead(text):
        return FcmAnswer(status, "object", codes=frozenset(("UNREGISTERED",)), says=text.lower())
    if _MESSAGE_NAME.fullmatch(text):
        return FcmAnswer(status, "object", name=text)
    printed = _PRINTED.fullmatch(text)
    answer = _read_word(status, printed["name"], printed["message"]) if printed else None
    return answer or FcmAnswer(status, "text", says=text.lower())


def _read_word(status: int | None, word: object, message: str) -> FcmAnswer | None:
    """An answer of which one word is left, perhaps with a message; None if the word is no code's name."""
    name = canonical(_text(word))
    if not name:
        return None
    agrees = _agrees(message)
    if name == "UNREGISTERED" and not agrees:
        name = "NOT_FOUND"
    if name in _RPC_ONLY:
        bare = agrees and word == "NOT_FOUND"
        return FcmAnswer(status or RPC_HTTP[name], "object", rpc=name, bare=bare)
    return FcmAnswer(status, "object", codes=frozenset((name,)), says=f"{word} {message}".lower())


def _agrees(message: object) -> bool:
    """Whether a message can stand beside "not registered"."""
    return (
        says_nothing_more(message)
        or says_token_is_dead(message)
        or canonical(_text(message)) == "UNREGISTERED"
    )


def read_apns(status: int | None, body: object) -> ApnsAnswer:
    """Read an answer of APNs' HTTP/2 API. `status`: HTTP status, None when there was no answer."""
    status, shape, value = read_body(status, body)
    if shape == "text":
        return _read_apns_text(status, value)
    if shape != "object":
        return ApnsAnswer(status, shape)
    words = apns_words(value)
    if status is None:
        status = _number(words.status)
    return ApnsAnswer(status, shape if words.own else "odd", words.reason, _moment(words.timestamp))


def _read_apns_text(status: int | None, text: str) -> ApnsAnswer:
    if status == 200 and _APNS_ID.fullmatch(text):  # the header's: APNs sent no body
        return ApnsAnswer(status, "empty")
    word = _APNS_WORD.fullmatch(text)
    if not word or status not in (None, int(word["status"] or status or 0)):
        return ApnsAnswer(status, "text")
    return ApnsAnswer(_number(word["status"]) or status, "text", reason=word["reason"])


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _field(detail: dict[Any, Any], wire: str, documented: str) -> object:
    # Google's reference prints snake_case, the wire carries camelCase.
    return detail.get(wire, detail.get(documented))


def _is_type(detail: dict[Any, Any], name: str) -> bool:
    # "type.googleapis.com/google.firebase.fcm.v1.FcmError"; some reporters drop @type.
    kind = detail.get("@type")
    if kind is None:
        wire = {"FcmError": ("errorCode", "error_code"), "ApnsError": ("statusCode", "status_code")}[name]
        return any(key in detail for key in wire)
    return isinstance(kind, str) and kind.endswith(f".{name}")


def _violations(detail: dict[Any, Any]) -> list[dict[Any, Any]]:
    found = _list(_field(detail, "fieldViolations", "field_violations")) or _list(detail.get("violations"))
    return [violation for violation in found if isinstance(violation, dict)]


def _list(value: object) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _moment(timestamp: object) -> datetime | None:
    if isinstance(timestamp, str) and "T" in timestamp:  # Go's and .NET's
        with suppress(ValueError):
            moment = datetime.fromisoformat(timestamp)
            return moment if moment.tzinfo and 2000 <= moment.year <= 2100 else None
    number = _number(timestamp)
    if number is None or not 0 < number < 4_102_444_800_000:  # year 2100
        return None
    # APNs sends milliseconds; client libraries are known to hand on seconds.
    return datetime.fromtimestamp(number / 1000 if number > 100_000_000_000 else number, UTC)
