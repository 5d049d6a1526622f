"""Find the value that an answer's body is, whatever it was packed into. Never raises."""

import re
from http import HTTPStatus
from typing import Any, Literal

import msgspec

#: What the body is: nothing at all; an HTML page; other text; an object; else (array, number, junk).
Shape = Literal["empty", "html", "text", "object", "odd"]

# "404: ", "HTTP/1.1 404 Not Found", "Unexpected HTTP response with status: 404; body: ", .NET's "Response
# status code does not indicate success: 404 (NotFound)", and what Google's Java client puts first: its
# exception's name and a line with the request. No other words: they may be what the answer is about.
_STATUS_LINE = re.compile(
    r"(?:[A-Za-z_][\w.$]{0,100}(?:Exception|Error)\s*:\s*)?"
    r"(?:(?:HTTP(?:/[\d.]+)?|unexpected|response|with|status|code|error|fcm|apns|rejected|returned"
    r"|does not indicate success)[\s:=]+)*"
    r"(?P<status>[1-5]\d\d)\b(?P<phrase>[ A-Za-z()]{0,40})[\s:;,-]*"
    r"(?:(?:POST https://fcm\.googleapis\.com/\S+|body)[\s:=]*)?(?=[{\[])",
    re.IGNORECASE,
)


def read_body(status: int | None, body: object) -> tuple[int | None, Shape, Any]:
    """The HTTP status, what the body is, and its value: an object or a text, else None.

    `status` is the reporter's; None where it has none, and then a status line before the JSON tells it.
    """
    if isinstance(body, dict):  # the usual ones, ahead of the checks that take time
        return status, "object", body
    if body is None:
        return status, "empty", None
    if isinstance(body, bytes | bytearray):
        body = bytes(body).decode(errors="replace")
    if isinstance(body, str):
        status, body = _parse(status, body.lstrip("\ufeff").strip())
        if isinstance(body, str) and body:
            head = body[:512].lower()
            return status, ("html" if head.startswith("<") or "<html" in head else "text"), body
    if isinstance(body, list | tuple) and len(body) == 1 and isinstance(body[0], dict):
        body = body[0]  # Google's streaming form: [{"error": ...}]
    if isinstance(body, dict):
        return status, "object", body
    return status, ("empty" if body is None or body == "" else "odd"), None


def _parse(status: int | None, text: str) -> tuple[int | None, object]:
    """The value of a JSON text, also behind a status line; any other text as it is."""
    if text[:1] in ("{", "[", '"') or text == "null":
        return status, _decode(text)
    line = _STATUS_LINE.match(text)
    if line is None or status not in (None, 0, int(line["status"])) or not _is_phrase(line):
        return status, text
    value = _decode(text[line.end() :])
    return (status, text) if isinstance(value, str) else (int(line["status"]), value)


def _decode(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text


def _is_phrase(line: re.Match[str]) -> bool:
    """Whether nothing, or HTTP's own phrase, stands behind the status."""
    phrase = re.sub("[^a-z]", "", line["phrase"].lower())
    return phrase in ("", *(_letters(known) for known in HTTPStatus if known == int(line["status"])))


def _letters(status: HTTPStatus) -> str:
    return re.sub("[^a-z]", "", status.phrase.lower())
