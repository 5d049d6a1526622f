"""SECURITY.md names what shows its claims, and it is there."""

import re
from pathlib import Path

import pytest

from tests.manual import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT))))
def test_every_test_that_is_named_exists(path: str) -> None:
    assert "def test_" in (ROOT / path).read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)\s#]+)", TEXT))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert Path(ROOT / link).is_file()


def test_every_claim_names_what_shows_it() -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    for _, who, _, cannot, shown, _ in rows:
        assert "tests/" in shown or not cannot.strip(), who
