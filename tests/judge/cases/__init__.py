"""Answers as data: each with the rule it proves, in the TOML files beside this one."""

import tomllib
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from worker.events import Channel
from worker.judge.rules import Evidence


class Case(NamedTuple):
    """One answer, and what it proves."""

    file: str
    why: str
    channel: Channel
    status: int | None
    body: object
    reason: str
    evidence: Evidence
    dead_since: datetime | None
    #: The library whose test data it is, what that makes of it, and why we judge otherwise where we do.
    library: str | None
    says: str | None
    differs: str | None


CASES = [
    Case(
        path.stem,
        entry["why"],
        entry["channel"],
        entry.get("status"),
        entry.get("body"),
        entry["reason"],
        Evidence(entry["evidence"]),
        entry.get("dead_since"),
        entry.get("library"),
        entry.get("says"),
        entry.get("differs"),
    )
    for path in sorted(Path(__file__).parent.glob("*.toml"))
    for entry in tomllib.loads(path.read_text())["case"]
]
