"""The wheel, as users get it, in virtual environments of its own."""

import fcntl
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

Done = subprocess.CompletedProcess[str]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that the first process of a run makes, and its others wait for."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    directory = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            directory.mkdir()
            make(directory)
    return directory


def build(source: Path, target: str, directory: Path) -> Path:
    """Build the `wheel` or the `sdist` of a project, into a directory that has none yet."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", directory],
        cwd=source,
        capture_output=True,
        check=True,
        timeout=60,
    )
    (built,) = directory.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as an index's users may have it."""

    def from_sdist(directory: Path) -> None:
        with tarfile.open(build(ROOT, "sdist", directory)) as sdist:
            sdist.extractall(directory, filter="data")
        (source,) = (path for path in directory.iterdir() if path.is_dir())
        build(source, "wheel", directory)

    (built,) = once(tmp_path_factory, "wheel", from_sdist).glob("*.whl")
    return built


class Venv:
    """A virtual environment, and what is run in it: in a directory where no checkout is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.site = Path(
            sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)})
        )

    @classmethod
    def make(cls, directory: Path, *, borrow: bool = True) -> "Venv":
        """A new one; `borrow`: it finds the libraries that these tests run with, but not our checkout."""
        venv.create(directory, with_pip=False, symlinks=True)
        made = cls(directory)
        if borrow:  # what such a file names is searched for modules, not for further such files
            (made.site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        return made

    def pip(self, *arguments: Any) -> Done:
        """Run our pip for it."""
        return subprocess.run(
            [sys.executable, "-m", "pip", "--quiet", "--python", self.bin / "python", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )

    def install(self, wheel: Path) -> None:
        """Install a wheel alone."""
        self.pip("install", "--no-deps", "--no-index", wheel).check_returncode()

    def run(
        self, *command: Any, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Done:
        """Run one of its programs, by name."""
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd or self.directory,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
