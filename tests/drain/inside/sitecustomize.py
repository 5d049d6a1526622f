"""On the path of a worker's process, this changes it from inside, as its environment says."""

import os
import signal
from pathlib import Path
from typing import Any

from worker import claims, events

if seconds := os.environ.get("TEST_LEASE"):
    # Before `worker.drain` copies them.
    claims.LEASE = int(seconds)
    claims.LOOK_AROUND = 1

if mark := os.environ.get("TEST_DIES_OF"):
    # Die of events skipped for this reason, as of a crash in a library.
    decode = events.decode

    def dying(payload: Any) -> Any:
        if isinstance(payload, dict) and payload.get("skipped") == mark:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(payload)

    events.decode = dying

if directory := os.environ.get("TEST_FAIL_POINTS"):
    import fail_points  # type: ignore[import-not-found]  # a neighbour, on the same path

    fail_points.place(Path(directory))

if seconds := os.environ.get("TEST_RQ_MINUTE"):
    # RQ gives a silent stock worker's job a minute, hard-coded; here it is this long.
    import short_minute  # type: ignore[import-not-found]

    short_minute.set_to(int(seconds))
