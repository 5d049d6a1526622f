"""One transaction: the rows of some jobs, and the tokens that are dead; then an account of both."""

#: The modules that others use.
__all__ = [
    "account",
    "brake",
    "counters",
    "notices",
    "numbers",
    "prune",
    "recording",
    "reservations",
    "tokens",
]
