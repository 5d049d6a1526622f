"""Ctrl-C while a command's modules load, which takes a third of a second: one line, no traceback."""

import os
import signal
import sys
from types import FrameType

from . import NAME


def guard() -> None:
    """End at a Ctrl-C until `ready`; where it is ignored, as in the background, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def ready() -> None:
    """From here on the command itself deals with a Ctrl-C, as KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def module() -> str:
    """The module that Python was told to run by `-m`; empty: none."""
    return sys.orig_argv[sys.orig_argv.index("-m") + 1] if "-m" in sys.orig_argv[:-1] else ""


def notiflog() -> int:
    """The command of this name; returns its exit status."""
    guard()
    from .__main__ import main

    return main()


def _end(signum: int, frame: FrameType | None) -> None:
    # Nothing is begun yet that would have to be tidied up.
    os.write(2, f"{module().rpartition('.')[2] or NAME}: interrupted\n".encode())
    os._exit(1)
