"""What a worker says: one line an event, out of one list, without secrets; to a log and to Sentry."""

from .catalogue import EVENTS
from .foreign import DESCRIPTIONS, describe
from .lines import (
    JsonFormatter,
    TextFormatter,
    error,
    info,
    info_each,
    lines,
    logger,
    token_hash,
    warning,
)
from .output import CarefulHandler, flush, setup

__all__ = [
    "DESCRIPTIONS",
    "EVENTS",
    "CarefulHandler",
    "JsonFormatter",
    "TextFormatter",
    "describe",
    "error",
    "flush",
    "info",
    "info_each",
    "lines",
    "logger",
    "sentry",
    "setup",
    "token_hash",
    "warning",
]
