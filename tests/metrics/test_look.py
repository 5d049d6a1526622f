"""A question to a server that may be slow: asked once at a time, and waited for as long as one wants to."""

import threading
import time

import pytest

from worker.metrics.look import Look


def now() -> float:
    return time.monotonic()


def test_an_answer_that_comes_in_time() -> None:
    look = Look(lambda: 7)
    look.start()
    assert look.answer(now() + 20) == 7


def test_one_that_does_not_is_not_waited_for() -> None:
    never = threading.Event()
    look = Look(never.wait)
    look.start()
    assert look.answer(now() + 0.05) is None
    never.set()


def test_it_is_asked_by_one_thread_at_a_time() -> None:
    go, asked = threading.Event(), []

    def ask() -> bool:
        asked.append(1)
        return go.wait()

    look = Look(ask)
    for _ in range(3):
        look.start()
    go.set()
    assert (look.answer(now() + 20), len(asked)) == (True, 1)


@pytest.mark.parametrize(("keep", "asked"), [(0, 2), (1000, 1)])
def test_an_answer_stands_as_long_as_it_is_kept(keep: float, asked: int) -> None:
    times = iter(range(9))
    look = Look(lambda: next(times), keep)
    for _ in range(2):
        look.start()
        last = look.answer(now() + 20)
    assert last == asked - 1


def test_while_it_is_asked_anew_a_kept_answer_still_stands() -> None:
    go, times = threading.Event(), iter(range(9))

    def ask() -> int:
        number = next(times)
        return number if not number or go.wait() else -1

    look = Look(ask, keep=1e-9)
    look.start()
    look.answer(now() + 20)
    look.start()
    assert look.answer(now() + 0.05) == 0
    go.set()


def test_what_cannot_be_asked_has_no_answer() -> None:
    times = iter([7])
    look = Look(lambda: next(times))
    for expected in (7, None):
        look.start()
        assert look.answer(now() + 20) == expected
