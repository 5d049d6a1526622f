"""Read a provider's raw answer, whatever its shape, into the few facts the classification asks for.

Nothing here raises: an answer may be JSON, JSON as text, an HTML page of some proxy, an empty string, a bare
code that a reporter kept instead of the body, or anything else.
"""

import re
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from msgspec import Struct

#: What the body is: nothing at all; an HTML page; other text; an object; else (array, number, junk).
Shape = Literal["empty", "html", "text", "object", "odd"]

#: FCM's own error codes (google.firebase.fcm.v1.FcmError.errorCode).
FCM_CODES = frozenset(
    {
        "APNS_AUTH_ERROR",  # the older name of THIRD_PARTY_AUTH_ERROR
        "INTERNAL",
        "INVALID_ARGUMENT",
        "QUOTA_EXCEEDED",
        "SENDER_ID_MISMATCH",
        "THIRD_PARTY_AUTH_ERROR",
        "UNAVAILABLE",
        "UNREGISTERED",
    }
)


_NO_CODE = (None, "", "UNSPECIFIED_ERROR")
_NOT_FOUND = frozenset({"", "requested entity was not found", "not found", "not_found", "gone"})
_MESSAGE_NAME = re.compile(r"projects/[^/\s]+/messages/[^/\s]+")


class FcmAnswer(Struct, frozen=True, gc=False):
    """What an FCM HTTP v1 answer says."""

    status: int | None
    shape: Shape
    #: `name` of an accepted message.
    name: str = ""
    #: google.rpc status of the error: "NOT_FOUND", ...
    rpc: str = ""
    #: errorCode of every FcmError detail, without the meaningless UNSPECIFIED_ERROR.
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
    shape, value = _read_body(body)
    if shape == "text":
        return _read_fcm_text(status, value)
    if shape != "object":
        return FcmAnswer(status, shape)
    if "error" not in value:
        return FcmAnswer(status, shape, name=_text(value.get("name")), bare=not value)
    error = value["error"]
    if not isinstance(error, dict):
        return FcmAnswer(status, "odd")

    details = _list(error.get("details"))
    objects = [detail for detail in details if isinstance(detail, dict)]
    fcm = [_field(detail, "errorCode", "error_code") for detail in objects if _is_type(detail, "FcmError")]
    apns = [detail for detail in objects if _is_type(detail, "ApnsError")]
    codes = frozenset(code for code in fcm if isinstance(code, str) and code) - {"UNSPECIFIED_ERROR"}
    said = [error, *objects, *(violation for detail in objects for violation in _violations(detail))]
    words = (_text(part.get(key)) for part in said for key in ("message", "reason", "field", "description"))
    return FcmAnswer(
        status,
        shape,
        rpc=_text(error.get("status")),
        codes=codes,
        apns=frozenset(
            (_number(_field(d, "statusCode", "status_code")), _text(d.get("reason"))) for d in apns
        ),
        says=" ".join(words).lower(),
        bare=len(value) == 1
        and len(fcm) == len(details)
        and all(code in _NO_CODE for code in fcm)
        and _is_bare(error, status),
    )


def _read_fcm_text(status: int | None, text: str) -> FcmAnswer:
    # Reporters that keep one word of the answer instead of its body.
    if text in FCM_CODES:
        return FcmAnswer(status, "object", codes=frozenset((text,)))
    if _says_nothing_more(text):
        return FcmAnswer(status, "object", rpc="NOT_FOUND", bare=True)
    if _MESSAGE_NAME.fullmatch(text):
        return FcmAnswer(status, "object", name=text)
    return FcmAnswer(status, "text", says=text.lower())


def _is_bare(error: dict[Any, Any], status: int | None) -> bool:
    """Whether an error without details says "not found" and gives no cause that is not the token's."""
    return (
        error.keys() <= {"code", "status", "message", "details", "errors"}
        and ("code" not in error or _number(error["code"]) == status)
        and error.get("status", "NOT_FOUND") == "NOT_FOUND"
        and _says_nothing_more(error.get("message", ""))
        and all(
            isinstance(item, dict) and item.get("reason") == "notFound" for item in _list(error.get("errors"))
        )
        and ("code" in error or "status" in error or "message" in error)
    )


def read_apns(status: int | None, body: object) -> ApnsAnswer:
    """Read an answer of APNs' HTTP/2 API. `status`: HTTP status, None when there was no answer."""
    shape, value = _read_body(body)
    if shape == "text" and value.isalpha():  # a reporter that keeps the reason alone
        return ApnsAnswer(status, shape, reason=value)
    if shape != "object":
        return ApnsAnswer(status, shape)
    if not value.keys() <= {"reason", "timestamp"}:  # some other server's words
        return ApnsAnswer(status, "odd", _text(value.get("reason")))
    return ApnsAnswer(status, shape, _text(value.get("reason")), _moment(value.get("timestamp")))


def _read_body(body: object) -> tuple[Shape, Any]:
    if isinstance(body, dict):  # the usual one, ahead of the checks that take time
        return "object", body
    if isinstance(body, bytes | bytearray):
        body = bytes(body).decode(errors="replace")
    if isinstance(body, str):
        body = body.lstrip("\ufeff").strip()
        if body[:1] in ("{", "[", '"') or body == "null":
            try:
                body = msgspec.json.decode(body)
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                return "text", body
        if isinstance(body, str) and body:
            head = body[:512].lower()
            return ("html" if head.startswith("<") or "<html" in head else "text"), body
    if isinstance(body, list | tuple) and len(body) == 1 and isinstance(body[0], dict):
        body = body[0]  # Google's streaming form: [{"error": ...}]
    if isinstance(body, dict):
        return "object", body
    return ("empty" if body is None or body == "" else "odd"), None


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


def _says_nothing_more(message: object) -> bool:
    # An allow-list: whatever else an error says may name a cause (a project, a path) in words of its own.
    return isinstance(message, str) and message.rstrip(".").casefold() in _NOT_FOUND


def _moment(timestamp: object) -> datetime | None:
    number = _number(timestamp)
    if number is None or not 0 < number < 4_102_444_800_000:  # year 2100
        return None
    # APNs sends milliseconds; client libraries are known to hand on seconds.
    return datetime.fromtimestamp(number / 1000 if number > 100_000_000_000 else number, UTC)
