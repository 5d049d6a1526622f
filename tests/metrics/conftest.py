"""The exporter as a process and within this one, and what it serves."""

import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from redis import Redis

from worker.metrics.collect import Everything
from worker.metrics.serve import Server


class Samples:
    """What was served: values by a metric's name and labels, `notiflog_up{server="redis"}`."""

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def __call__(self, name: str, **labels: str) -> float:
        return self.values[name + _labels(labels)]


def ask(url: str, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    """Status, content type and body."""
    request = urllib.request.Request(url + path, headers=headers)  # noqa: S310 - our own address
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def scrape(url: str, timeout: float = 10) -> Samples:
    """What a Prometheus reads, in OpenMetrics."""
    headers = {"Accept": "application/openmetrics-text", "X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
    status, kind, body = ask(url, **headers)
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    return Samples(
        {
            sample.name + _labels(sample.labels): sample.value
            for family in text_string_to_metric_families(body)  # type: ignore[no-untyped-call]
            for sample in family.samples
        }
    )


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{labels[name]}"' for name in sorted(labels)) + "}" if labels else ""


@contextmanager
def exporter(environment: dict[str, str], *options: str) -> Iterator[str]:
    """The command as its own process; yields where it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.metrics", "--port", "0", *options],
        env={"PATH": os.environ["PATH"], **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process:
        try:
            yield process.stdout.readline().split()[-1].removesuffix("/metrics")
        finally:
            process.terminate()
            assert process.wait(20) == 0


@pytest.fixture
def serve(
    database: str, valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Serve from within this process, in an environment with changes; returns where."""
    servers = []

    def serve(**environment: str) -> str:
        for name, value in {"DATABASE_URL": database, "REDIS_URL": valkey_url, **environment}.items():
            monkeypatch.setenv(name, value)
        server = Server("127.0.0.1", 0, Everything("notiflog"))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server.url

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
