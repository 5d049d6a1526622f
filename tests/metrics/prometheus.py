"""Debian's Prometheus, scraping our exporter, and what it answers."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.drain.conftest import until
from worker.demo.sandbox import free_port

PROGRAM = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")

_CONFIG = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 1s }}
rule_files: ['{rules}']
scrape_configs:
  - job_name: notiflog
    static_configs: [{{ targets: ['{target}'] }}]
"""


class Prometheus:
    """A running one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression is now: series with labels and value."""
        question = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{question}", timeout=20) as answer:  # noqa: S310
            found = json.load(answer)
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def values(self, metric: str, *labels: str) -> dict[tuple[str, ...], int]:
        """A metric's values by some of its labels, without those that are 0."""
        series = self.query(metric)
        found = {
            tuple(each["metric"][label] for label in labels): int(float(each["value"][1])) for each in series
        }
        return {key: value for key, value in found.items() if value}


@contextmanager
def prometheus(target: str, rules: Path, directory: Path) -> Iterator[Prometheus]:
    """Scrape `target` five times a second."""
    config = directory / "prometheus.yml"
    config.write_text(_CONFIG.format(rules=rules, target=target))
    address = f"127.0.0.1:{free_port()}"
    options = (f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}")
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROGRAM), *options, f"--web.listen-address={address}"], stdout=log, stderr=log
        )
    running = Prometheus(f"http://{address}")

    def scraped() -> bool:
        with suppress(OSError):
            return bool(running.query("notiflog_up == 1"))
        assert process.poll() is None, (directory / "prometheus.log").read_text()
        return False

    try:
        until(scraped)
        yield running
    finally:
        process.terminate()
        process.wait(20)
