"""An event to look at: what may be a token, a person or anything unforeseen stands there as a hash. Pure."""

import json
import re
from typing import Any

from ..logs import token_hash

# What each field may show, whatever was put there; all else is hashed.
_UUID = re.compile(r"[0-9A-Fa-f]{8}-?(?:[0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{5,18}(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})?")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SHOWN = {
    "chapter_id": _UUID,
    "scenario_rule_id": _UUID,
    "attempted_at": _TIME,
    "sent_at": _TIME,
    "delivery_channel": re.compile(r"[A-Za-z]{1,8}"),
    "target": _NAME,
    "skipped": _NAME,
    # FCM's and APNs' own words for what was wrong.
    "status": re.compile(r"[A-Z_]{1,40}"),
    "errorCode": re.compile(r"[A-Z_]{1,40}"),
    "reason": re.compile(r"[A-Z][A-Za-z]{1,39}"),
}
_FIELD = re.compile(r"[A-Za-z@][A-Za-z_]{0,31}")
_LARGEST_NUMBER = 999  # no telephone number, and every HTTP status


def hashed(event: str) -> str:
    """An event's JSON with hashes, of which those of tokens are the log lines'."""
    return json.dumps(_hide("", json.loads(event)))


def _hide(field: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {_field(name): _hide(name, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_hide("", one) for one in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        shown = field in _SHOWN and _SHOWN[field].fullmatch(value)
        return value if shown else _hash(value)
    return value if -1 <= value <= _LARGEST_NUMBER else _hash(str(value))


def _field(name: str) -> str:
    return name if _FIELD.fullmatch(name) else _hash(name)


def _hash(text: str) -> str:
    return f"sha256:{token_hash(text)}"
