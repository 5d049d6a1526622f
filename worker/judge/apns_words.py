"""APNs' words, also out of what libraries of other languages keep of its answer. Never raises.

Sources: node-apn 7 and @parse/node-apn, apns2 for Node 12, sideshow/apns2 for Go 0.25, dotAPNS 4, CorePush 4
"""

from typing import Any, NamedTuple

# Go's and .NET's names begin with a capital.
_REASON = ("reason", "Reason")
_TIMESTAMP = ("timestamp", "Timestamp")
_STATUS = ("status", "statusCode", "StatusCode")
#: Where they put APNs' own object.
_INSIDE = ("response", "error", "Error")
_ON_THE_WIRE = frozenset({"reason", "timestamp", "apns-id", "apns_id", "apns-unique-id"})
_KNOWN = _ON_THE_WIRE.union(
    _REASON, _TIMESTAMP, _STATUS, _INSIDE, ("device", "ApnsID", "ApnsUniqueID", "IsSuccess", "IsSuccessful")
)


class ApnsWords(NamedTuple):
    """What an object says of a push."""

    reason: str = ""
    timestamp: object = None
    #: The HTTP status, as a number or its digits; None where no reason stands beside it.
    status: object = None
    #: There is nothing in it that could come from something else.
    own: bool = False


def apns_words(value: dict[Any, Any]) -> ApnsWords:
    """What an object says in APNs' words, or in a library's for them."""
    value = _of_one(value)
    inside = [found for place in _INSIDE if isinstance(found := value.get(place), dict)]
    parts = [value, *inside]
    reasons = _found(parts, _REASON)
    if not reasons:
        return ApnsWords(timestamp=value.get("timestamp"), own=value.keys() <= _ON_THE_WIRE)
    reason = reasons[0]
    if not isinstance(reason, str) or any(other != reason for other in reasons):
        return ApnsWords()
    failed_without_one = not reason and (
        inside or False in (value.get("IsSuccess"), value.get("IsSuccessful"))
    )
    return ApnsWords(
        reason,
        next(iter(_found(parts, _TIMESTAMP)), None),
        next(iter(_found(parts, _STATUS)), None),
        own=not failed_without_one and all(part.keys() <= _KNOWN for part in parts),
    )


def _of_one(value: dict[Any, Any]) -> dict[Any, Any]:
    """Node's result of a call for one device; of several nobody knows whose it is."""
    match value:
        case {"sent": [] | (), "failed": [dict() as one]} if len(value) == 2:
            return one
        case {"sent": [_], "failed": [] | ()} if len(value) == 2:
            return {}
    return value


def _found(parts: list[dict[Any, Any]], names: tuple[str, ...]) -> list[object]:
    return [part[name] for part in parts for name in names if part.get(name) is not None]
