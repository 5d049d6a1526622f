"""What RQ stored of an error tells why a job stopped, and never the data that the error quotes."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from worker.queue.causes import REASONS, Cause, cause

CASES: dict[str, dict[str, Any]] = {
    case["name"]: case
    for case in tomllib.loads(Path(__file__).with_name("cases").joinpath("errors.toml").read_text())["case"]
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    case = CASES[name]
    told = Cause(case["reason"], case["why"], case.get("events"), tuple(case.get("rejected", ())))
    assert cause(case["error"]) == told
    assert (told.reason in REASONS, "SECRET" in repr(told)) == (True, False)


def test_a_refused_events_line_is_bounded() -> None:
    head = "worker.jobs.RejectedEvents: 1 of 1 events rejected, all others are recorded"
    (line,) = cause(f"{head}\n[0] $.b: {'x' * 9999}").rejected
    assert len(line) == 300
