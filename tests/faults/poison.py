"""Spoil every key that a worker uses with a value of every other type, and see that no job is lost."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns pytest's exit status, 0 if no job was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.poison", description=__doc__)
    parser.add_argument("--key", default="", metavar="TEXT", help="only keys with this in their names")
    options = parser.parse_args(arguments)
    os.environ["NOTIFLOG_TEST_POISON"] = "all"
    here = Path(__file__).parent
    tests = [here / "test_poison.py", here.parent / "drain" / "test_scripts.py"]
    return int(pytest.main(["-k", options.key, *map(str, tests)]))


if __name__ == "__main__":
    sys.exit(main())
