"""Scripts that Redis runs as one step; each is a file beside the module that uses it."""

from collections.abc import Mapping
from pathlib import Path

from redis import Redis
from redis.commands.core import Script

from .keys import RENAMED

_MEND = f"local RENAMED = '{RENAMED}'\n" + Path(__file__).with_name("mend.lua").read_text()
#: What looks through all places of jobs.
PLACES = Path(__file__).with_name("places.lua")
_MEND_ALL = "for at, key in ipairs(KEYS) do mend(key, ARGV[at]) end"


def script(redis: Redis, file: Path, *before: Path) -> Script:
    """A script that can `mend` the keys it uses; `before`: files of what else it uses."""
    return redis.register_script("".join((_MEND, *(each.read_text() for each in before), file.read_text())))


def mend(redis: Redis, kinds: Mapping[str, str]) -> None:
    """Rename keys that hold another type of value than they should. `kinds`: the right type, by key."""
    redis.register_script(_MEND + _MEND_ALL)(list(kinds), list(kinds.values()))
