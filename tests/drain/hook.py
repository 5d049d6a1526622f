"""Functions of an app that NOTIFLOG_HOOK may name, good and bad."""

import os
from typing import Any


def note(notices: list[dict[str, Any]]) -> None:
    print("told:", [notice["notice"] for notice in notices])  # noqa: T201


def raises(notices: list[dict[str, Any]]) -> None:
    raise RuntimeError("of the app's")


def exits(notices: list[dict[str, Any]]) -> None:
    os._exit(3)


def prints(notices: list[dict[str, Any]]) -> None:
    print("x" * 10_000_000)  # noqa: T201
