"""What every command needs: its words, its progress, and an exit status whatever happens to it."""

import errno
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from . import NAME
from ._loading import ready

#: Seconds between two lines of progress where there is no bar.
EVERY = 5.0

_UNWRITABLE = "cannot write the answer: {}"


class Command(click.Command):
    """A command, called with its arguments; what it is `interrupted` with tells whether to run it again.

    The call returns the exit status: 0 done, 1 a problem, 2 wrong configuration. After `--help` and on wrong
    usage it raises SystemExit with 0 and 2, as the command line wants it.
    """

    def __init__(self, *args: Any, interrupted: str = "interrupted", **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self.interrupted = interrupted

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        return run(self, f"python -m {NAME}.{self.name}", arguments)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As it is written: click would fill its lines."""
        if self.epilog:
            formatter.write(f"\n{self.epilog}")


def run(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command under the name `program`; returns its exit status, see Command."""
    _prepare()
    try:
        ready()
        with command.make_context(program, list(sys.argv[1:] if arguments is None else arguments)) as context:
            return int(command.invoke(context) or 0)
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from None
    except click.UsageError as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        problem = getattr(command, "interrupted", "interrupted")
    except _Unwritable as error:
        problem = str(error)
    except BrokenPipeError:  # of what click or rich wrote: the help, a table
        _silence(sys.stdout)
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EFBIG):
            raise
        _silence(sys.stdout)
        problem = _UNWRITABLE.format(error.strerror)
    return _complain(command.name, problem)


def no_command(module: str) -> int:
    """What a module says that is run and does nothing; returns the exit status."""
    return complain(f"{NAME}.{module} is to be imported; `python -m {NAME}` lists the commands", 2)


def say(text: str = "") -> None:
    """Write a line of the answer. A reader who has seen enough (`| head`) stops the answer, not the work."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise _Unwritable(_UNWRITABLE.format(error.strerror)) from None


def flow(text: str, start: str = "") -> None:
    """Write prose behind `start`: on a terminal its lines break between words, and begin under the first."""
    for line in _lines(text, start, sys.stdout):
        say(line)


def complain(message: str, status: int = 1) -> int:
    """Write a line for whoever watches, after the command's name; returns `status`."""
    context = click.get_current_context(silent=True)
    return _complain(context.command.name if context else None, message, status)


def count(n: int, what: str) -> str:
    """Say how many: "no jobs", "1 job", "1,200 jobs"."""
    return f"{f'{n:,}' if n else 'no'} {what}{'' if n == 1 else 's'}"


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show on standard error how many of `total` are done: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=what, show_pos=True, file=sys.stderr) as bar:
            yield lambda done: bar.update(done - bar.pos)
        return
    shown = time.monotonic()

    def show(done: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > EVERY:
            shown = time.monotonic()
            _tell(f"{done:,} of {total:,} {what}")

    yield show


class _Unwritable(Exception):
    """Nobody can read the answer, and that is not what its reader wanted."""


def _prepare() -> None:
    """Make standard output and error fit for every word: closed, or of an encoding that lacks some."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - open until the process ends
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")


def _silence(stream: TextIO) -> None:
    """Drop what else is written; without this, so would complain the flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complain(name: str | None, message: str, status: int = 1) -> int:
    _tell("\n".join(_lines(message, f"{name or NAME}: ", sys.stderr)))
    return status


def _lines(text: str, start: str, stream: TextIO) -> list[str]:
    """Lines no longer than a terminal's; elsewhere it is one line, for those who search."""
    if not stream.isatty():
        return [start + text]
    width = shutil.get_terminal_size().columns
    column = len(click.unstyle(start))
    first, *others = textwrap.wrap(
        text,
        width,
        initial_indent=" " * column,
        subsequent_indent=" " * min(column, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]
    return [start + first[column:], *others]


def _tell(line: str) -> None:
    """Write a line to standard error; if nobody can read it, so be it."""
    try:
        print(line, file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        _silence(sys.stderr)


if __name__ == "__main__":
    raise SystemExit(no_command("command"))
