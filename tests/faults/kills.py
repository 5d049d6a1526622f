"""Workers that die of SIGKILL, at seeded moments, and are started again at once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from redis import Redis

from worker.demo import sandbox

#: Lets a worker's process be changed from inside, see there.
INSIDE = Path(__file__).parents[1] / "drain" / "inside"

#: Whom a kill ends; `horse`: the process that a stock worker forks for a job.
Who = Literal["worker", "horse", "both"]

#: From outside, some time into a job or turn, or whatever the worker does.
AT_WORK, ANY_TIME = "at-work", "any-time"

#: The moments of a kill and whom it ends, each as likely as the others. All others are fail points.
DRAIN: list[tuple[str, Who]] = [
    (AT_WORK, "worker"),
    (AT_WORK, "worker"),
    (AT_WORK, "worker"),
    (ANY_TIME, "worker"),
    ("after-claim", "worker"),
    ("before-transaction", "worker"),
    ("after-send", "worker"),
    ("before-commit", "worker"),
    ("after-commit", "worker"),
    ("after-finish", "worker"),
    ("after-takeover", "worker"),
]
STOCK: list[tuple[str, Who]] = [
    (AT_WORK, "worker"),
    (AT_WORK, "horse"),
    (AT_WORK, "both"),
    ("after-claim", "worker"),
    *[
        (moment, who)
        for moment in ("before-transaction", "after-send", "before-commit", "after-commit", "after-finish")
        for who in ("horse", "both")
    ],
]


class Kill(NamedTuple):
    """One kill to come."""

    moment: str
    who: Who
    #: Which of the workers, as a share of those in question.
    pick: float
    #: For `at-work`: seconds after that worker began.
    into: float
    #: Seconds until the next.
    pause: float


def plan(moments: Sequence[tuple[str, Who]], kills: int, seed: int) -> list[Kill]:
    """Choose the kills: the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret

    def choose() -> Kill:
        pause = chance.triangular(0.1, 1.0, 0.3)
        return Kill(*chance.choice(moments), chance.random(), chance.uniform(0, 0.06), pause)

    return [choose() for _ in range(kills)]


class FailPoints:
    """The files that the fail points of all workers look for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._armed = 0
        for moment, _ in (*DRAIN, *STOCK):
            (directory / moment).mkdir(parents=True, exist_ok=True)

    def arm(self, moment: str, who: Who = "worker") -> None:
        """Let the next process that comes to this place die, with its worker for `both`."""
        self._armed += 1
        (self.directory / moment / f"{who}-{self._armed}").touch()

    def waiting(self) -> list[str]:
        """The moments of the deaths still to come."""
        return [file.parent.name for file in self.directory.glob("*/*")]


class Host:
    """Keeps some `rq worker notiflog` running, as a Procfile host does."""

    def __init__(
        self, environment: dict[str, str], directory: Path, redis: Redis, workers: int, options: Sequence[str]
    ) -> None:
        self.points = FailPoints(directory / "fail-points")
        self._environment = {
            **environment,
            "NOTIFLOG_PRUNE_LIMIT": "100%",  # a week of sends in some seconds
            "PYTHONPATH": str(INSIDE),
            "TEST_FAIL_POINTS": str(self.points.directory),
        }
        self._redis = redis
        self._options = options
        self._started = 0
        #: What is wrong with workers that ended by themselves.
        self.ended: list[str] = []
        self.log = directory / "workers.log"
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(workers):
            self._start()

    def keep_running(self) -> None:
        """Start another worker for each that died."""
        for name, process in list(self._workers.items()):
            if (status := process.poll()) is not None:
                if status != -signal.SIGKILL:
                    self.ended.append(f"{name} ended by itself with status {status}")
                del self._workers[name]
                self._start()

    def kill(self, kill: Kill, names: Sequence[str] = ()) -> bool:
        """Send SIGKILL to one of the workers, or of `names`; returns whether there was whom to kill."""
        names = names or list(self._workers)
        worker = self._workers[names[int(kill.pick * len(names))]]
        if worker.poll() is not None:
            return False
        if kill.who != "worker":
            if not (horse := self._horse(worker.pid)):
                return False
            with suppress(ProcessLookupError):
                os.kill(horse, signal.SIGKILL)
        if kill.who != "horse":
            worker.kill()
        return True

    def kill_at_work(self, kill: Kill) -> bool:
        """The same for one of the workers that have jobs now, `kill.into` seconds from now."""
        names = self._at_work()
        time.sleep(kill.into if names else 0)
        return bool(names) and self.kill(kill, names)

    @property
    def workers(self) -> int:
        return len(self._workers)

    def stop(self) -> None:
        """End all workers warmly, once they are up: until then SIGTERM ends Python as it is."""
        for name, process in self._workers.items():
            deadline = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < deadline and not self._is_up(name):
                time.sleep(0.02)
            sandbox.stop(process, signal.SIGTERM)
            if process.returncode:
                self.ended.append(f"{name} ended with status {process.returncode}")
        self._workers.clear()

    def _is_up(self, name: str) -> bool:
        """Whether a worker is in its loop, and so listens to signals."""
        return self._redis.hget(f"rq:worker:{name}", "state") in (b"idle", b"busy")

    def _horse(self, worker: int) -> int | None:
        """The process that a stock worker forked last, if it lives."""
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            horse = int((self.points.directory / f"horse-of-{worker}").read_text())
            if os.getsid(horse) == worker:  # and no stranger that got the same number
                return horse
        return None

    def _at_work(self) -> list[str]:
        names = list(self._workers)
        with self._redis.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.scard(f"rq:worker:{name}:executions")
            return [name for name, jobs in zip(names, pipeline.execute(), strict=True) if jobs]

    def _start(self) -> None:
        self._started += 1
        name = f"worker-{self._started}"
        command = [str(Path(sys.executable).with_name("rq")), "worker", "notiflog", "--name", name]
        with self.log.open("ab") as log:
            self._workers[name] = subprocess.Popen(
                [*command, *self._options],
                env=self._environment,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                start_new_session=True,
            )
