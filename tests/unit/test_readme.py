"""The README says what the code does."""

import re
import tomllib
from pathlib import Path

import pytest

from worker.config import Settings, read_settings
from worker.rules import APNS_RULES, FCM_RULES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
REASONS = sorted({rule.reason for rule in FCM_RULES} | {rule.reason for rule in APNS_RULES})
VARIABLES = sorted(
    set(re.findall(r'"((?:DATABASE_URL|NOTIFLOG_)\w*)"', (ROOT / "worker/config.py").read_text()))
)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_stands_in_the_outcome_table(reason: str) -> None:
    assert f"`{reason}`" in README


def test_no_reason_stands_there_that_the_rules_do_not_know() -> None:
    table = README.partition("## What an answer means")[2].partition("\n## ")[0]
    cells = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(REASONS)


@pytest.mark.parametrize("variable", [*VARIABLES, "REDIS_URL", "RQ_WORKER_CLASS"])
def test_every_variable_stands_in_the_configuration_and_the_example(variable: str) -> None:
    assert f"| `{variable}`" in README
    assert re.search(rf"^{variable}=", EXAMPLE, re.MULTILINE)


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    lines = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"[A-Z]", line))
    settings = read_settings(lines)
    assert settings == Settings(database_url=settings.database_url)


def test_pins_are_exact_and_meet_the_declared_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    names = [re.match(r"[\w-]+", dependency) for dependency in project["dependencies"]]
    assert {name[0] for name in names if name} <= set(pins)
