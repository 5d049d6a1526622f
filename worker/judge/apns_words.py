"""APNs' words, also out of what libraries of other languages keep of its answer. Never raises.

Sources: node-apn 7 and @parse/node-apn, apns2 for Node 12, sideshow/apns2 for Go 0.25, dotAPNS 4, CorePush 4
"""

from typing import Any, NamedTuple

#: What PyAPNs2 says in place of the empty body of an accepted push; here, whatever else says so.
SUCCESS = "Success"

_ON_THE_WIRE = frozenset({"reason", "timestamp", "apns-id", "apns_id", "apns-unique-id"})
# Go's and .NET's names begin with a capital.
_REASON = ("reason", "Reason")
_TIMESTAMP = ("timestamp", "Timestamp")
_STATUS = ("status", "statusCode", "StatusCode")
# Where they put APNs' own object.
_INSIDE = ("response", "error", "Error")
_OF_A_SUCCESS = frozenset(
    {"StatusCode", "Reason", "ApnsID", "ApnsUniqueID", "Timestamp", "IsSuccess", "IsSuccessful", "Error"}
)


class ApnsWords(NamedTuple):
    """What an object says of a push."""

    reason: str = ""
    timestamp: object = None
    #: The HTTP status, as a number or its digits.
    status: object = None
    #: It is APNs' own object: nothing stands in it that could come from something else.
    own: bool = False


def apns_words(value: dict[Any, Any]) -> ApnsWords:
    """What an object says in APNs' words, or in a library's for them."""
    own = value.keys() <= _ON_THE_WIRE
    match value:  # Node's result of a call for one device; of several nobody knows whose it is
        case {"sent": [_], "failed": [] | ()} if len(value) == 2:
            return ApnsWords(SUCCESS)
        case {"sent": [] | (), "failed": [dict() as one]} if len(value) == 2:
            value = one
    parts = [value, *(found for place in _INSIDE if isinstance(found := value.get(place), dict))]
    reasons = _found(parts, _REASON)
    if any(not isinstance(reason, str) or reason != reasons[0] for reason in reasons):
        return ApnsWords()
    reason = str(reasons[0]) if reasons else ""
    if not reason and _is_success(value):
        return ApnsWords(SUCCESS)
    return ApnsWords(
        reason,
        next(iter(_found(parts, _TIMESTAMP)), None),
        next(iter(_found(parts, _STATUS)), None) if reason else None,
        own,
    )


def _is_success(value: dict[Any, Any]) -> bool:
    """Whether it is a result of Go's or .NET's that says so."""
    said = (value.get("StatusCode") == 200, value.get("IsSuccess") is True, value.get("IsSuccessful") is True)
    return any(said) and value.keys() <= _OF_A_SUCCESS and value.get("Error") is None


def _found(parts: list[dict[Any, Any]], names: tuple[str, ...]) -> list[object]:
    return [part[name] for part in parts for name in names if part.get(name) is not None]
