"""On the path of a worker's process, this changes it from inside, as its environment says."""

import logging
import os
import re
import signal
import time
from pathlib import Path

from worker.drain import DrainWorker
from worker.drain.claims import Timing
from worker.servers import postgres

times = {name: float(os.environ.get(f"TEST_{name.upper()}") or 0) for name in Timing._fields}
if times["lease"] and not times["look_around"]:
    times["look_around"] = 1.0
DrainWorker.timing = Timing(**{name: seconds for name, seconds in times.items() if seconds})

if limits := os.environ.get("TEST_LIMITS"):
    # Limits of a transaction, for instance `lock_timeout=300ms`, more of them after commas.
    for limit in limits.split(","):
        name, _, value = limit.partition("=")
        postgres._LIMITS, changed = re.subn(rf"'{name}', '\w+'", f"'{name}', '{value}'", postgres._LIMITS)
        assert changed == 1, f"no {name} in the settings of a transaction"

if hanging := os.environ.get("TEST_HANGS"):
    # A turn hangs for ever: in the worker's own code, or in a handler of lines of whoever runs it.
    from worker import logs
    from worker.judge import batch

    def hang(record: object) -> bool:
        time.sleep(3600 if getattr(record, "msg", "outcomes_recorded") == "outcomes_recorded" else 0)
        return True

    if hanging == "judging":
        batch.fold = hang  # type: ignore[attr-defined, assignment]  # imported there, not offered
    else:
        handler = logging.StreamHandler()
        handler.addFilter(hang)
        logs.logger.addHandler(handler)

if mark := os.environ.get("TEST_DIES_OF"):
    # Die of events skipped for this reason, as of a crash in a library.
    from worker.events import Event
    from worker.judge import batch, classify

    def dying(event: Event) -> classify.Outcome:
        if event.skipped == mark:
            os.kill(os.getpid(), signal.SIGKILL)
        return classify.fold(event)

    batch.fold = dying  # type: ignore[attr-defined]  # imported there, not offered

if directory := os.environ.get("TEST_FAIL_POINTS"):
    import fail_points  # type: ignore[import-not-found]  # a neighbour, on the same path

    fail_points.place(Path(directory))

if seconds := os.environ.get("TEST_RQ_MINUTE"):
    # RQ gives a silent stock worker's job a minute, hard-coded; here it is this long.
    import short_minute  # type: ignore[import-not-found]

    short_minute.set_to(int(seconds))
