"""The list of metrics is one: what is served, `names.FAMILIES`, and what the manual shows."""

import re

from tests.manual import section
from worker.metrics.names import FAMILIES
from worker.record.numbers import FAULTS, OTHER_FAULT
from worker.record.prune import FATES


def test_the_list_stands_in_the_manual() -> None:
    rows = [line for line in section("Metrics").splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {help} |"
        for name, kind, labels, help in FAMILIES
    ]


def test_so_do_the_values_of_the_labels_that_are_lists_of_ours() -> None:
    quoted = set(re.findall(r"`(\w+)`", section("Metrics").partition("All labels")[2]))
    assert {*FATES, *FAULTS.values(), OTHER_FAULT} <= quoted
