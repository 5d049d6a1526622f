"""A worker is alive as long as its work moves: nothing that it writes to may hold it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, STARTED, rows, until
from worker.demo import sample
from worker.demo.sandbox import stop


@pytest.mark.parametrize("options", [(), ("--with-scheduler",)], ids=["worker", "with its scheduler"])
def test_output_that_nobody_reads_holds_no_job_and_no_stop(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    environment: dict[str, str],
    connection: psycopg.Connection,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [Path(sys.executable).with_name("rq"), "worker", "notiflog", *options],
        env=environment,
        stdout=writer,
        stderr=writer,
        cwd=tmp_path,
    )
    os.close(writer)
    failing = [make.result(http_status=503, body=None)] * 400  # a line each
    for n in range(10):
        queue.enqueue(JOB, [make.event(app, n, results=failing)])
    try:
        until(lambda: rows(connection) == 10)
        until(lambda: redis.zcard(STARTED) == 0)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        stop(worker, signal.SIGKILL)
        os.close(reader)


def test_a_reader_that_comes_back_is_told_how_many_lines_it_missed() -> None:
    code = (
        "import sys; from worker import logs; logs.setup()\n"
        "for n in range(100_000): logs.info('guard_off', stale=n)\n"
        "print('written', file=sys.stderr); sys.stdin.read(); logs.info('guard_off', stale=-1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stderr.readline()
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1]["event"] == "lines_lost":
                process.stdin.close()
    lost, last = seen[-2:]
    assert (len(seen) - 2 + lost["lines"], lost["lines"] > 0, last["stale"]) == (100_000, True, -1)
