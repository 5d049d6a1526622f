"""On the path of a worker's process, this shortens its times, as its environment says."""

import os
import re

from worker import claims, db

if seconds := os.environ.get("TEST_LOOK_AROUND"):
    # Before `worker.drain` copies it.
    claims.LOOK_AROUND = float(seconds)  # type: ignore[assignment]

if seconds := os.environ.get("TEST_LEASE"):
    claims.LEASE = int(seconds)

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
