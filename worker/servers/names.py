"""Names in the environment that are nearly ours."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from .tokens import VARIABLES

_VARIABLES = (
    *VARIABLES,
    "NOTIFLOG_CONNECTIONS",
    "NOTIFLOG_HOOK",
    "NOTIFLOG_PRUNE_LIMIT",
    "NOTIFLOG_REQUIRE_TLS",
    "NOTIFLOG_RETAIN",
)
_WORKERS = ("worker.drain.DrainWorker", "notiflog.drain.DrainWorker")


def misspelt(environ: Mapping[str, str]) -> Iterator[str]:
    """Sentences on variables whose name, or whose name of a worker class, is nearly one of ours.

    A name that resembles none may be another release's, and is let be.
    """
    for name in sorted(environ):
        if name.startswith("NOTIFLOG_") and name not in _VARIABLES:
            for nearest in get_close_matches(name, _VARIABLES, 1, 0.85):
                yield f"{name} is not known: did you mean {nearest}?"
    if problem := misspelt_worker(environ):
        yield problem


def misspelt_worker(environ: Mapping[str, str]) -> str | None:
    """A sentence on a worker class of nearly our name, of which RQ would show a traceback."""
    chosen = environ.get("RQ_WORKER_CLASS", "")
    if chosen in _WORKERS or not (nearest := get_close_matches(chosen, _WORKERS, 1, 0.85)):
        return None
    return f"RQ_WORKER_CLASS names no worker: did you mean {nearest[0]}?"
