"""One thing looked at, and what is to be said of it."""

from typing import Literal, NamedTuple

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One thing looked at."""

    #: Stable, `group.thing`: redis.eviction, postgres.tls.
    name: str
    level: Level
    #: What was found, as a phrase; no secrets, no data.
    text: str
    #: What to do about it; empty if nothing.
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}" if self.remedy else self.text
