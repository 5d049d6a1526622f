"""On the path of a worker's process, this changes it from inside, as its environment says."""

import os
import re
import signal
from pathlib import Path

from worker import claims, db

if seconds := os.environ.get("TEST_LEASE"):
    # Before `worker.drain` copies them.
    claims.LEASE = int(seconds)
    claims.LOOK_AROUND = 1

if seconds := os.environ.get("TEST_LOOK_AROUND"):
    claims.LOOK_AROUND = float(seconds)

if seconds := os.environ.get("TEST_REDIS_PATIENCE"):
    claims.REDIS_PATIENCE = float(seconds)

if seconds := os.environ.get("TEST_PATIENCE"):
    # How long a stopping worker waits for what is being written.
    db.STATEMENT_TIMEOUT = int(seconds)

if limits := os.environ.get("TEST_LIMITS"):
    # Limits of a transaction, for instance `lock_timeout=300ms`, more of them after commas.
    for limit in limits.split(","):
        name, _, value = limit.partition("=")
        db._LIMITS, changed = re.subn(rf"'{name}', '\w+'", f"'{name}', '{value}'", db._LIMITS)
        assert changed == 1, f"no {name} in the settings of a transaction"

if mark := os.environ.get("TEST_DIES_OF"):
    # Die of events skipped for this reason, as of a crash in a library.
    from worker import classify
    from worker.events import Event

    fold = classify.fold

    def dying(event: Event) -> classify.Outcome:
        if event.skipped == mark:
            os.kill(os.getpid(), signal.SIGKILL)
        return fold(event)

    classify.fold = dying  # before `worker.jobs` copies it

if directory := os.environ.get("TEST_FAIL_POINTS"):
    import fail_points  # type: ignore[import-not-found]  # a neighbour, on the same path

    fail_points.place(Path(directory))

if seconds := os.environ.get("TEST_RQ_MINUTE"):
    # RQ gives a silent stock worker's job a minute, hard-coded; here it is this long.
    import short_minute  # type: ignore[import-not-found]

    short_minute.set_to(int(seconds))
