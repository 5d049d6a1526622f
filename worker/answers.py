"""Read a provider's raw answer, whatever its shape, into the few facts the classification asks for.

Nothing here raises: an answer may be JSON, JSON as text, an HTML page of some proxy, an empty string, a bare
code that a reporter kept instead of the body, or anything else.
"""

from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

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


class FcmAnswer(NamedTuple):
    """What an FCM HTTP v1 answer says."""

    status: int | None
    shape: Shape
    #: `name` of an accepted message.
    name: str = ""
    #: google.rpc status of the error: "NOT_FOUND", ...
    rpc: str = ""
    #: errorCode of every FcmError detail, without the meaningless UNSPECIFIED_ERROR.
    codes: frozenset[str] = frozenset()
    #: statusCode and reason of a nested ApnsError.
    apns_status: int | None = None
    apns_reason: str = ""
    #: Everything the answer blames, lower case: message, field violations, reasons.
    blames: str = ""
    #: The object says nothing beyond "not found": no code, no detail, no other status, no foreign field.
    bare: bool = False


class ApnsAnswer(NamedTuple):
    """What an APNs answer says."""

    status: int | None
    shape: Shape
    reason: str = ""
    #: When APNs confirmed that the token was no longer valid (only on 410).
    dead_since: datetime | None = None


def read_fcm(status: int | None, body: object) -> FcmAnswer:
    """Read an answer of FCM's v1 API. `status`: HTTP status, None when there was no answer."""
    shape, value = _read_body(body)
    if shape == "text" and value in FCM_CODES:  # a reporter that keeps the code alone
        return FcmAnswer(status, "object", codes=frozenset((value,)))
    if shape == "text" and value.rstrip(".") in ("NOT_FOUND", "Requested entity was not found"):
        return FcmAnswer(status, "object", rpc="NOT_FOUND", bare=True)
    if shape != "object":
        return FcmAnswer(status, shape, blames=value.lower() if shape == "text" else "")
    if "error" not in value:
        return FcmAnswer(status, shape, name=_text(value.get("name")), bare=not value)
    error = value["error"]
    if not isinstance(error, dict):
        return FcmAnswer(status, "odd")

    details = error.get("details") or ()
    details = (details,) if isinstance(details, dict) else details
    details = [d for d in details if isinstance(d, dict)] if isinstance(details, list | tuple) else []
    codes = frozenset(
        code
        for detail in details
        if _is_type(detail, "FcmError") and (code := _text(_field(detail, "errorCode", "error_code")))
    ) - {"UNSPECIFIED_ERROR"}
    apns: dict[Any, Any] = next((d for d in details if _is_type(d, "ApnsError") and "reason" in d), {})
    rpc, message = _text(error.get("status")), _text(error.get("message"))
    others = [d for d in details if not _is_type(d, "FcmError")]
    blames = " ".join((message, *(_blamed(detail) for detail in others))).lower()
    return FcmAnswer(
        status,
        shape,
        rpc=rpc,
        codes=codes,
        apns_status=_number(_field(apns, "statusCode", "status_code")),
        apns_reason=_text(apns.get("reason")),
        blames=blames,
        bare=(
            not codes
            and not others
            and error.get("status") in (None, "", "NOT_FOUND")
            and _number(error.get("code")) in (None, status)
        ),
    )


def read_apns(status: int | None, body: object) -> ApnsAnswer:
    """Read an answer of APNs' HTTP/2 API. `status`: HTTP status, None when there was no answer."""
    shape, value = _read_body(body)
    if shape == "text" and value.isalpha():  # a reporter that keeps the reason alone
        return ApnsAnswer(status, "object", reason=value)
    if shape != "object":
        return ApnsAnswer(status, shape)
    return ApnsAnswer(status, shape, _text(value.get("reason")), _moment(value.get("timestamp")))


def _read_body(body: object) -> tuple[Shape, Any]:
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
    if isinstance(body, list | tuple) and len(body) == 1:  # Google's streaming form: [{"error": ...}]
        body = body[0]
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


def _blamed(detail: dict[Any, Any]) -> str:
    violations = _field(detail, "fieldViolations", "field_violations") or detail.get("violations")
    violations = violations if isinstance(violations, list | tuple) else ()
    said = [detail, *(violation for violation in violations if isinstance(violation, dict))]
    return " ".join(_text(part.get(key)) for part in said for key in ("reason", "field", "description"))


def _moment(timestamp: object) -> datetime | None:
    number = _number(timestamp)
    if number is None or not 0 < number < 4_102_444_800_000:  # year 2100
        return None
    # APNs sends milliseconds; client libraries are known to hand on seconds.
    return datetime.fromtimestamp(number / 1000 if number > 100_000_000_000 else number, UTC)
