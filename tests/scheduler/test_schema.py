"""The JSON Schema of an event: current, and of one mind with the code."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from tests import make
from worker import events
from worker.demo import sample
from worker.events import InvalidEvent, decode

ROOT = Path(__file__).parents[2]
CHECKED_IN = ROOT / "worker/event.schema.json"

APP = sample.App([UUID(int=1)], [UUID(int=2)], [UUID(int=3)])
BODIES: list[Any] = [{}, [], "text", 1, None, True]
WINDOW: dict[str, Any] = {"idempotency_key": None, "date_window": "2026-W47"}

#: Payloads by their change to a good event; None: the field is left out.
GOOD: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a window": WINDOW,
    "skipped": {"results": [], "skipped": "quiet_hours"},
    "skipped, no results": {"results": None, "skipped": "quiet_hours"},
    "nothing sent": {"results": None},
    "not final": {"final": False},
    "version": {"version": 1},
    "no answer": {"results": [make.result(http_status=None, body=None)]},
    "any body": {"results": [make.result(body=body) for body in BODIES]},
    "a FID": {"results": [make.result(target="fid")]},
    "null for a target": {"results": [make.result(target=None)]},
    "other channel": {"results": [make.result(delivery_channel="apns", sent_at=make.SENT_AT)]},
}
BAD: dict[str, dict[str, Any]] = {
    "no key": {"idempotency_key": None},
    "two keys": {"date_window": "2026-W47"},
    "empty key": {"idempotency_key": ""},
    "long key": {"idempotency_key": "k" * 256},
    "both sent and skipped": {"skipped": "quiet_hours"},
    "empty reason": {"results": [], "skipped": ""},
    "unknown channel": {"delivery_channel": "sms"},
    "unknown version": {"version": 2},
    "unknown field": {"status": "delivered"},
    "number for an id": {"chapter_id": 7},
    "results no list": {"results": {}},
    "token empty": {"results": [make.result(token="")]},
    "status text": {"results": [make.result(http_status="200")]},
    "unknown target": {"results": [make.result(target="topic")]},
    "status too large": {"results": [make.result(http_status=1000)]},
    "unknown field in a result": {"results": [make.result(retry_after=3)]},
    "final text": {"final": "no"},
    "not an object": {"results": ["token"]},
}


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    contents = json.loads(CHECKED_IN.read_text())
    Draft202012Validator.check_schema(contents)
    return Draft202012Validator(contents)


def payload(changes: dict[str, Any]) -> dict[str, Any]:
    left_out = {name for name in ("results", "idempotency_key") if changes.get(name, "") is None}
    return {name: value for name, value in make.event(APP, **changes).items() if name not in left_out}


@pytest.mark.parametrize("name", GOOD)
def test_schema_and_code_accept(schema: Draft202012Validator, name: str) -> None:
    decode(payload(GOOD[name]))
    schema.validate(payload(GOOD[name]))


@pytest.mark.parametrize("name", BAD)
def test_schema_and_code_refuse(schema: Draft202012Validator, name: str) -> None:
    with pytest.raises(InvalidEvent):
        decode(payload(BAD[name]))
    assert not schema.is_valid(payload(BAD[name]))


@pytest.mark.parametrize("field", ["idempotency_key", "date_window", "results", "skipped"])
def test_null_is_as_good_as_left_out(schema: Draft202012Validator, field: str) -> None:
    event = {**payload(WINDOW if field == "idempotency_key" else {}), field: None}
    decode(event)
    schema.validate(event)


def test_every_field_of_the_code_is_in_the_schema() -> None:
    defs = json.loads(CHECKED_IN.read_text())["$defs"]
    for struct in (events.Event, events.SendResult):
        assert set(defs[struct.__name__]["properties"]) == set(struct.__struct_fields__)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "worker.events", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_what_is_checked_in() -> None:
    """Otherwise: python -m worker.events --schema > worker/event.schema.json"""
    assert run("--schema").stdout == CHECKED_IN.read_text()


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), ([], 2), (["--shema"], 2)])
def test_the_command_explains_itself(arguments: list[str], status: int) -> None:
    done = run(*arguments)
    assert (done.returncode, "--schema" in done.stdout + done.stderr) == (status, True)
