"""The TypeScript module as Node and Deno run it, with tools and clients of npm from a directory."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.migrations.conftest import require
from tests.scheduler.conftest import statuses, work

__all__ = ["statuses", "work"]

ROOT = Path(__file__).parents[2]
#: What the directory's node_modules must hold: `npm install --prefix DIRECTORY` of these.
PACKAGES = ("typescript", "deno", "ioredis", "redis", "@types/node")
VARIABLE = "NOTIFLOG_TEST_NODE"


class Ran(NamedTuple):
    """What a program said."""

    code: int
    output: str
    errors: str

    @property
    def said(self) -> Any:
        """Its JSON, if it ended well."""
        assert self.code == 0, self.errors
        return json.loads(self.output)


class Project(NamedTuple):
    """A directory with the module, the example, the tests' driver and what npm has installed."""

    directory: Path

    def run(self, runtime: str, *words: str, **input: Any) -> Ran:
        """Run the driver in `node` or `deno`; `input`: what it reads as JSON, by that name."""
        program = [str(shutil.which("node")), "driver.js"] if runtime == "node" else self.deno("driver.ts")
        (self.directory / "input.json").write_text(json.dumps(input.get("input")))
        done = subprocess.run(
            [*program, *words],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def deno(self, script: str) -> list[str]:
        return [self.tool("deno"), "run", "--no-check", "--allow-all", "--cached-only", "--no-lock", script]

    def tool(self, name: str) -> str:
        return str(self.directory / "node_modules/.bin" / name)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Compiled: node runs what the compiler makes, deno the sources themselves."""
    installed = Path(os.environ.get(VARIABLE, ""), "node_modules")
    there = VARIABLE in os.environ and all((installed / package).exists() for package in PACKAGES)
    require(
        there and shutil.which("node"),
        f"node with {', '.join(PACKAGES)} (name their directory in {VARIABLE})",
    )
    directory = tmp_path_factory.mktemp("typescript")
    for source in (*(ROOT / "examples/edge").glob("*.ts"), Path(__file__).with_name("driver.ts")):
        shutil.copy(source, directory)
    (directory / "node_modules").symlink_to(installed)
    (directory / "package.json").write_text(
        json.dumps({"type": "module", "dependencies": {"ioredis": "*", "redis": "*"}})
    )
    (directory / "deno.json").write_text(json.dumps({"nodeModulesDir": "manual"}))
    options = {
        "strict": True,
        "noUnusedLocals": True,
        "target": "es2022",
        "module": "nodenext",
        "rewriteRelativeImportExtensions": True,
        "skipLibCheck": True,
        "types": ["node"],
    }
    config = {"compilerOptions": options, "files": ["notiflog.ts", "driver.ts"]}
    (directory / "tsconfig.json").write_text(json.dumps(config))
    made = Project(directory)
    compiled = subprocess.run(
        [made.tool("tsc"), "-p", "."], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
    return made


@pytest.fixture(params=["node", "deno"])
def runtime(request: pytest.FixtureRequest) -> str:
    runtime: str = request.param
    return runtime


@pytest.fixture(params=["ioredis", "node-redis"])
def client(request: pytest.FixtureRequest) -> str:
    client: str = request.param
    return client


Enqueue = Callable[..., Any]


@pytest.fixture
def socket(valkey_url: str) -> str:
    """Where the tests' Valkey listens."""
    return valkey_url.removeprefix("unix://")
