"""Scripts that Redis runs as one step; each is a file beside the module that uses it."""

from pathlib import Path

from redis import Redis
from redis.commands.core import Script

_MEND = Path(__file__).with_name("mend.lua").read_text()


def script(redis: Redis, file: Path) -> Script:
    """A script that can `mend` the keys it shares with others."""
    return redis.register_script(_MEND + file.read_text())
