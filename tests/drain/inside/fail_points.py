"""Places in a worker's process where it can be made to die: `place`, and `FailPoints.arm` on the other side.

A directory for each place holds one file for each death to come. Who reaches the place and manages to remove
a file dies: whichever worker comes first is the one, and each file is one death.
"""

import os
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rq import Worker
from rq.worker import BaseWorker

from worker.drain.claims import Claims
from worker.record import store
from worker.record.rows import IsolatedRows
from worker.servers import round_trip


def place(directory: Path) -> None:
    """Put the fail points into the code of both worker classes, armed by files below `directory`."""

    def reach(point: str) -> None:
        for file in (directory / point).iterdir():
            try:
                file.unlink()
            except FileNotFoundError:
                continue  # another process died of it
            if file.name.startswith("both-"):  # of a work horse: its worker, too
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def change(
        owner: Any,
        name: str,
        before: str = "",
        after: str = "",
        when: Callable[[Any], object] = lambda result: True,
    ) -> None:
        original = getattr(owner, name)

        @wraps(original)
        def changed(*args: Any, **kwargs: Any) -> Any:
            if before:
                reach(before)
            result = original(*args, **kwargs)
            if after and when(result):
                reach(after)
            return result

        setattr(owner, name, changed)

    change(store, "write", before="before-transaction", after="after-commit")
    # PostgreSQL has all of the transaction, COMMIT included, and nobody hears what it says.
    change(round_trip, "_send", after="after-send")
    # Where some rows are singled out the transaction takes several round trips.
    change(IsolatedRows, "insert", after="before-commit")
    # The draining worker's scripts; only those that changed something.
    change(Claims, "claim", after="after-claim", when=lambda turn: turn.jobs)
    change(Claims, "finish", after="after-finish")
    change(Claims, "_give_back", after="after-takeover", when=any)
    # The stock worker knows its work horse in memory only: have it written down.
    fork = Worker.fork_work_horse

    def fork_and_tell(worker: Worker, *args: Any) -> None:
        fork(worker, *args)
        (directory / f"horse-of-{os.getpid()}").write_text(str(worker.horse_pid))

    Worker.fork_work_horse = fork_and_tell
    # The stock worker between taking a job off the queue and starting it, and its work horse.
    change(Worker, "execute_job", before="after-claim")
    change(BaseWorker, "handle_job_success", after="after-finish")
