"""Keeps the durable record of what became of push prompts, and device tokens clean. See docs/."""

import sys

#: What this package is called here: `worker` in a checkout, `notiflog` installed.
NAME = __name__

# Python looks for the module to run, and that is a command of ours: `python -m worker.check`.
if sys.argv[:1] == ["-m"]:
    from . import _loading

    if _loading.module().partition(".")[0] == NAME:
        _loading.guard()
