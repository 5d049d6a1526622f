"""The list of log lines is one: what the code logs, what `logs.EVENTS` says, and what the manual shows."""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import rq

import worker
from tests.manual import section
from worker import logs
from worker.judge.batch import Batch
from worker.judge.classify import Failure, classify
from worker.record import store
from worker.record.account import account
from worker.record.prune import Pruned
from worker.record.recording import _fields
from worker.sweep import __main__ as sweep
from worker.sweep import passes

PACKAGE = Path(worker.__file__).parent


class Call(NamedTuple):
    """A call of `logs.info` or its like."""

    place: str
    event: str
    fields: set[str]
    #: It has more fields, by `**` or as a second argument.
    more: bool


def calls() -> Iterator[Call]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(
                r"logs\.(info|info_each|warning|error)", ast.unparse(node.func)
            ):
                event = ast.literal_eval(node.args[0])
                fields = {keyword.arg for keyword in node.keywords}
                more = None in fields or len(node.args) > 1
                yield Call(f"{path.name}:{node.lineno}", event, {f for f in fields if f}, more)


CALLS = list(calls())
_NOTHING = store.Recorded(frozenset(), {}, {}, {}, frozenset(), Pruned())
#: What these bring.
MORE: dict[str, set[str]] = {
    "outcomes_recorded": set(account([Batch(0, [], [])], _NOTHING, frozenset())[0].summary),
    "send_failed": set(_fields(Failure("token", "fcm", 500, classify("fcm", 500, None)))),
    "job_failed": set(logs.describe(None)),
    "tokens_swept": {*sweep._COUNTS, *passes.AGES, "age_unknown", "no_verdict_unavailable"},
}


def fits(event: str, fields: set[str]) -> bool:
    """Whether a line of this event may have these fields."""
    listed = logs.EVENTS[event].fields.split()
    always = {name for name in listed if name[0] != "["}
    sometimes = "|".join(name[1:-1].replace("*", r"\w+") for name in listed if name[0] == "[")
    return always <= fields and all(re.fullmatch(sometimes, name) for name in fields - always)


def misfits(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines that are not as the list says."""
    return [line for line in lines if not fits(line["event"], line.keys() - {"ts", "level", "event"})]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_has_the_event_and_the_fields_of_every_call(call: Call) -> None:
    assert call.event in logs.EVENTS
    assert fits(call.event, call.fields | (MORE[call.event] if call.more else set()))


def test_has_no_event_that_nobody_logs() -> None:
    assert set(logs.EVENTS) == {call.event for call in CALLS} | {"rq", "library"}


def test_stands_in_the_manual() -> None:
    rows = [line for line in section("Log lines").splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | {event.meaning} | {', '.join(f'`{field}`' for field in event.fields.split())} |"
        for name, event in logs.EVENTS.items()
    ]


def test_rq_shows_a_jobs_description_nowhere_but_where_we_know() -> None:
    found = set()
    for path in Path(rq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and re.search(r"\blog(ger)?\.\w+$", ast.unparse(node.func))
                and "description" in ast.unparse(node)
            ):
                position = [".description" in ast.unparse(argument) for argument in node.args].index(True)
                found.add((ast.literal_eval(node.args[0]), position - 1))
    assert found == set(logs.DESCRIPTIONS.items())
