"""What is installed with an extra only: said in a sentence where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from . import NAME


class MissingExtra(RuntimeError):
    """A job's function lacks what an extra brings; says which.

    No ImportError: RQ takes one for a wrong name of the function, and does not show its text.
    """


@contextmanager
def extra(name: str, error: type[BaseException] = SystemExit) -> Iterator[None]:
    """Import in this block what `pip install 'notiflog[name]'` brings; raises `error` where that is missing.

    For a command, RQ's included, SystemExit: the sentence is all that is shown.
    """
    try:
        yield
    except ImportError as missing:
        if not missing.name or missing.name.split(".")[0] == NAME:
            raise
        raise error(
            f"`{missing.name}` is missing, or not of the right version: pip install 'notiflog[{name}]'"
        ) from None


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("extras"))
