"""On the path of a worker's process, this changes it from inside, as its environment says."""

import os
import signal
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
