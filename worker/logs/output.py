"""Where lines go: to standard output, by a thread, so that whoever logs never waits for whoever reads."""

import logging
import os
import select
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TextIO

from .. import logs
from .lines import JsonFormatter, TextFormatter, logger

# Bytes of lines that wait for a reader; later ones are counted and dropped. A worker at full speed whose
# every send fails writes so much in some two seconds.
_MOST_WAITING = 8 << 20
# What a pipe takes at once, without a wait, when it takes anything.
_CHUNK = select.PIPE_BUF
# How long the end of a process, or a forked process at each line, waits for a reader, in seconds.
_PATIENCE = 2.0


class CarefulHandler(logging.Handler):
    """A handler whose own faults show no record: logging would print it, arguments and all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say on standard error that a line is lost."""
        _tell_lost(sys.exc_info()[1])


class Output(CarefulHandler):
    """Lines to a file descriptor, by a thread of their own; in a forked process, or if told, at once.

    At once means as far as there is room. What RQ forks for a job ends without notice, so it needs this.

    Lines that found no room, or could not be written, are counted; `lines_lost` tells how many, once somebody
    reads again. Each number here is changed by one thread only, or under the handler's lock: that suffices.
    """

    def __init__(self, descriptor: int, *, at_once: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._start_anew(at_once=at_once)
        os.register_at_fork(after_in_child=lambda: self._start_anew(at_once=True))

    def _start_anew(self, *, at_once: bool) -> None:
        # No thread of its parent's lives in a forked process, and what waits is the parent's to write.
        self._at_once = at_once
        self._thread: threading.Thread | None = None
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._put = self._taken = 0  # bytes: into the queue, and out of it
        self._dropped = self._unwritten = self._told = 0  # lines
        self._patience = _PATIENCE

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record's lines written."""
        try:
            text = f"{self.format(record)}\n".encode("ascii", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        if self._at_once or not self._has_thread():
            self._write_what_fits(text)
        elif self._put - self._taken + len(text) > _MOST_WAITING:
            self._dropped += text.count(b"\n")
        else:
            self._put += len(text)
            self._lines.put(text)

    def flush(self) -> None:
        """Wait until all is written, two seconds at most."""
        deadline = time.monotonic() + _PATIENCE
        while self._put != self._taken and time.monotonic() < deadline:
            time.sleep(0.001)

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, name="log", daemon=True)
            with suppress(RuntimeError):  # none can be had here: whoever refuses to start says so
                thread.start()
                self._thread = thread
        return self._thread is not None

    def _write_all(self) -> None:
        while True:
            text = self._lines.get()
            if not self._is_written(text):
                self._unwritten += text.count(b"\n")
            elif self._lines.empty():
                self._tell()
            self._taken += len(text)

    def _write_what_fits(self, text: bytes) -> None:
        for start in range(0, len(text), _CHUNK):
            # A second wait would be as long, and as vain.
            room = select.select([], [self._descriptor], [], self._patience)[1]
            self._patience = _PATIENCE if room else 0.0
            if not room or not self._is_written(text[start : start + _CHUNK]):
                self._unwritten += text.count(b"\n", start)
                return
        self._tell()

    def _tell(self) -> None:
        lost = self._dropped + self._unwritten
        if newly := lost - self._told:
            self._told = lost
            logs.warning("lines_lost", lines=newly)

    def _is_written(self, text: bytes) -> bool:
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            _tell_lost(error)
            return False
        return True


class _Stream(CarefulHandler, logging.StreamHandler[TextIO]):
    """Lines to what stands in for standard output: a notebook's, a test's."""


def setup(*, at_once: bool = False) -> bool:
    """Write this process's lines, RQ's included, unless its program has set up logging itself. Idempotent.

    `at_once`: by no thread, where the process may end without notice. Returns whether RQ had set up lines of
    its own form: where RQ forks for each job, its worker goes on so.
    """
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if logger.hasHandlers():
        return False
    logging.getLogger().addHandler(_standard_output(at_once=at_once))
    rq = logging.getLogger("rq")
    if rq.level == logging.NOTSET:
        rq.setLevel(logging.INFO)
    other_form = False
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("rq.")]:
        other = logging.getLogger(name)
        for handler in [one for one in other.handlers if type(one).__module__ == "rq.logutils"]:
            other.removeHandler(handler)
            other.propagate = other_form = True
    return other_form


def flush() -> None:
    """Wait until this process's lines are written, or some seconds where nobody reads them."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _standard_output(*, at_once: bool) -> logging.Handler:
    if sys.stdout is None:  # closed
        return logging.NullHandler()
    handler: logging.Handler
    try:
        handler = Output(sys.stdout.fileno(), at_once=at_once)
    except (OSError, ValueError):
        handler = _Stream(sys.stdout)
    if sys.stdout.isatty():
        handler.setFormatter(TextFormatter(colour=not os.environ.get("NO_COLOR")))
    else:
        handler.setFormatter(JsonFormatter())
    return handler


def _tell_lost(error: BaseException | None) -> None:
    print(f"a log line is lost: {error and type(error).__name__}", file=sys.stderr)  # noqa: T201
