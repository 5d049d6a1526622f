"""`python -m worker.enqueue FILE`: events of a file, all of them or none."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis import Redis
from rq import Queue

from tests import make
from worker import enqueue
from worker.demo import sample


@pytest.fixture(autouse=True)
def address(valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


@pytest.fixture
def good(app: sample.App, tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(f"{json.dumps(make.event(app, number))}\n" for number in range(501)))
    return path


def test_good_events_are_enqueued_as_a_scheduler_would(
    good: Path, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enqueue.main([str(good), "--queue", "outcomes"]) == 0
    assert capsys.readouterr().out == "501 events enqueued on outcomes, in 2 jobs\n"
    jobs = Queue("outcomes", connection=redis).jobs
    assert [len(job.args[0]) for job in jobs] == [500, 1]
    assert jobs[0].args[0][0] == json.loads(good.read_text().splitlines()[0])


def test_a_dry_run_enqueues_nothing(good: Path, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    assert enqueue.main([str(good), "--dry-run"]) == 0
    assert (capsys.readouterr().out, redis.keys()) == ("501 events checked, none of them invalid\n", [])


def test_of_standard_input_as_well(
    good: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(good.read_bytes().splitlines()[0])))
    assert enqueue.main(["-"]) == 0
    assert capsys.readouterr().out == "1 event enqueued on notiflog, in 1 job\n"


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_each_bad_line_is_told_by_its_number_and_nothing_is_enqueued(
    good: Path, redis: Redis, capsys: pytest.CaptureFixture[str], dry_run: list[str]
) -> None:
    bad = '\n\n{"token": "S3CR3T"\n[]\n{"S3CR3T": 1}\n\xff\n'
    good.write_bytes(good.read_bytes() + bad.encode("latin-1"))
    assert enqueue.main([str(good), *dry_run]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "enqueue: line 504: is not JSON",
        "enqueue: line 505: $: expected `object`, got `array`",
        "enqueue: line 506: $: unknown field",
        "enqueue: line 507: is not JSON",
        "enqueue: 4 of 505 events invalid, none is enqueued",
    ]
    assert (said.out, redis.keys()) == ("", [])


@pytest.mark.parametrize("arguments", [[], ["nowhere.jsonl"], ["/"]])
def test_without_a_file_that_can_be_read_it_is_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        enqueue.main(arguments)
    assert caught.value.code == 2


def test_a_redis_that_is_away_is_one_sentence(
    good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:S3CR3T@127.0.0.1:1")
    assert enqueue.main([str(good)]) == 1
    said = capsys.readouterr().err
    assert (said.count("\n"), "check REDIS_URL" in said, "S3CR3T" in said) == (1, True, False)
