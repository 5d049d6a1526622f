"""The tutorial, done as it stands there: its files written, its commands run, what it shows compared."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from redis import Redis

from tests.house.test_installed import installed
from tests.installed import Venv, wheel
from tests.manual import BLOCKS, ROOT

__all__ = ["installed", "wheel"]

TUTORIAL = [block for block in BLOCKS if block.page == ROOT / "docs" / "tutorial.md"]
#: What a test brings itself: the installed wheel, the servers, and their addresses.
BROUGHT = {"Install it", "Have two servers"}


def shown(text: str) -> re.Pattern[str]:
    """A pattern for what is shown, where ... stands for anything."""
    return re.compile(re.escape(text.strip()).replace(r"\.\.\.", r".*"), re.DOTALL)


def test_each_step_does_what_it_says(
    installed: Venv, empty_database: str, valkey_url: str, redis: Redis, tmp_path: Path
) -> None:
    rq = tmp_path / "bin" / "rq"  # the libraries are borrowed, and their programs not
    rq.parent.mkdir()
    rq.write_text(f'#!/bin/sh\nexec {installed.bin}/python -m rq.cli "$@"\n')
    rq.chmod(0o755)
    environment = {
        "PATH": f"{installed.bin}:{rq.parent}:{os.environ['PATH']}",
        "DATABASE_URL": empty_database,
        "REDIS_URL": valkey_url,
    }
    said, compared = "", 0
    for block in TUTORIAL:
        if block.title:
            (tmp_path / block.title).write_text(block.code)
        elif block.language == "sh" and block.heading not in BROUGHT:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],  # noqa: S607
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, f"{block}: {done.stderr}"
            said = done.stdout
        elif block.language == "text":
            assert shown(block.code).search(said), f"{block} shows other than\n{said}"
            compared += 1
    assert compared == 4


@pytest.mark.parametrize("service", ["postgres", "valkey"])
def test_the_servers_that_it_starts_are_in_the_compose_file(service: str) -> None:
    (start,) = (block.code for block in TUTORIAL if "docker compose" in block.code)
    assert service in start.split()
    assert f"\n  {service}:\n" in (ROOT / "compose.yaml").read_text()
