"""The whole way of a prompt, from being due to its row, with death on every side."""

import os
from pathlib import Path

import pytest
from redis import Redis

from tests.faults.scheduler import MOMENTS
from tests.faults.story import deaths, story
from worker.demo import sample

#: Between them the schedulers die at every moment.
SEEDS = (1, 9, 11)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_prompt_is_sent_twice_and_none_is_lost_from_sight(
    database: str, valkey_url: str, redis: Redis, tmp_path: Path, app: sample.App, seed: int
) -> None:
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": database, "REDIS_URL": valkey_url}
    outcome = story(environment, tmp_path, app, seed)
    assert outcome.problems == []
    assert outcome.figures["schedulers killed"] == 2
    assert outcome.figures["workers killed"] == 4
    assert outcome.figures["recorded at last"] == outcome.figures["prompts"]


def test_the_schedulers_die_at_every_moment() -> None:
    assert {moment for seed in SEEDS for moment, _ in deaths(seed) if moment} == set(MOMENTS)
