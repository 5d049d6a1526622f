"""Everything there is to find out, of all servers side by side."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from ..servers.finding import Finding
from ..servers.findings import settings_findings
from ..servers.settings import ConfigError, read_settings
from ..servers.token_shape import columns
from ..servers.tokens import TokenTable
from .database import database
from .queue import redis_and_queue
from .sweep import credentials_findings

#: Seconds for all questions to one server.
PATIENCE = 20.0

_SUBJECTS = ("settings", "redis", "postgres", "queue")


def look(queue: str) -> list[Finding]:
    """Everything there is to find out, in the order to read it. Takes some PATIENCE seconds at most."""
    # Side by side: neither server's silence shall hide what the other says.
    answers = {"redis": _start(lambda: redis_and_queue(queue))}
    try:
        settings = read_settings(os.environ)
    except ConfigError as error:
        problems = (line.partition(": ") for line in str(error).splitlines())
        found = [Finding("settings.environment", "problem", text, remedy) for text, _, remedy in problems]
    else:
        answers["postgres"] = _start(lambda: database(settings))
        tables = ", ".join(dict.fromkeys(_words(table) for table in settings.tokens.values()))
        found = [Finding("settings.environment", "ok", f"complete; device tokens in {tables}")]
        found += settings_findings(settings)
    found += credentials_findings()
    for about, answer in answers.items():
        found += _answer(about, answer)
    return sorted(found, key=lambda finding: _SUBJECTS.index(subject(finding)))


def _words(table: TokenTable) -> str:
    return f"{table} ({', '.join(columns(table))})"


def _start(ask: Callable[[], Iterator[Finding]]) -> "Future[list[Finding]]":
    answer: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            answer.set_result(list(ask()))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: a server that never answers must not keep the command from ending.
    threading.Thread(target=run, daemon=True).start()
    return answer


def _answer(about: str, answer: "Future[list[Finding]]") -> list[Finding]:
    try:
        return answer.result(PATIENCE)
    except TimeoutError:
        text, remedy = f"no answer within {PATIENCE:.0f} s", "is the server, or a pooler before it, stuck?"
        return [Finding(f"{about}.reachable", "problem", text, remedy)]


def subject(finding: Finding) -> str:
    """What a finding is about: the settings, one of the servers, or the queue."""
    return finding.name.partition(".")[0]
