"""`replay --show` and `--export`: rejected events to look at, and to correct."""

import json
import os
import pickle
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, Drain, call, drain, new_worker, queue
from tests.queue.test_stopped import fail, set_aside
from worker import enqueue
from worker.demo import sample
from worker.logs import token_hash
from worker.replay import __main__ as replay
from worker.replay.hashed import hashed

__all__ = ["drain", "new_worker", "queue"]

TOKEN = "d0c:APA91b-S3CR3T"


@pytest.fixture(autouse=True)
def address(valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


@pytest.fixture
def bad(queue: Queue, app: sample.App, drain: Drain) -> Any:
    """A job of which two events were rejected."""
    events = [make.event(app, number) for number in range(4)]
    events[1] |= {"chapter_id": make.stranger(), "results": [make.unregistered(TOKEN)]}
    events[3] |= {"delivery_channel": f"pager of {TOKEN}"}
    job = queue.enqueue(JOB, events)
    drain()
    return job


def rejected(redis: Any, events: list[Any], lines: str, job_id: str = "job") -> None:
    text = f"worker.jobs.RejectedEvents: 1 of {len(events)} events rejected, all others are recorded; correct"
    fail(redis, job_id, f"{text}\n{lines}", data=call(events))


# --- look at them ------------------------------------------------------------------------------------------


def test_rejected_events_are_shown_with_hashes(
    bad: Any, app: sample.App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay.main(["--show", bad.id]) == 0
    shown = capsys.readouterr().out
    head, first, event, second, other = shown.strip().splitlines()[1:]
    assert head == "  2 of 4 events rejected, all others are recorded"
    assert first == f"    [1] $.chapter_id: there is no such chapter: {make.stranger()}"
    assert second == "    [3] $.delivery_channel: expected 'fcm' or 'apns'"
    assert json.loads(event) == {
        "peer_mentor_id": f"sha256:{token_hash(str(app.users[1]))}",
        "chapter_id": make.stranger(),
        "scenario_rule_id": str(app.rules[0]),
        "idempotency_key": f"sha256:{token_hash('key-1')}",
        "delivery_channel": "fcm",
        "attempted_at": make.SENT_AT,
        "results": [
            {
                "token": f"sha256:{token_hash(TOKEN)}",
                "http_status": 404,
                "body": {"error": {"details": [{"errorCode": "UNREGISTERED"}]}},
            }
        ],
    }
    assert json.loads(other)["delivery_channel"].startswith("sha256:")
    assert "S3CR3T" not in shown


def test_a_job_without_rejected_events_says_so(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    fail(redis, "broken", "worker.servers.postgres.DatabaseFault: gone", data=call([{}]))
    set_aside(redis, "aside", timeout="soon")
    assert replay.main(["--show", "broken", "--show", "aside", "--show", "nobody"]) == 1
    said = capsys.readouterr()
    assert said.out.count("no event of it is known to be rejected") == 2
    assert said.err == "replay: no stopped job has this id: nobody\n"


SECRETS = st.text("S3CR3T-@+é\0\ud800", min_size=1, max_size=12).map(lambda text: f"S3CR3T{text}")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(1000) | SECRETS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SECRETS | st.sampled_from(sorted({
        "token", "body", "results", "skipped", "status", "reason", "chapter_id", "attempted_at", "target",
    })), inner, max_size=4),
)  # fmt: skip


@given(event=ANYTHING)
def test_whatever_an_event_is_no_value_of_it_is_shown(event: Any) -> None:
    assert "S3CR3T" not in hashed(json.dumps(event))


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("skipped", "quiet_hours", True),
        ("skipped", "Ms Miller is ill", False),
        ("attempted_at", "2026-11-16T06:00:00.123456+01:00", True),
        ("attempted_at", "yesterday", False),
        ("chapter_id", "6f1b4c1e-9d0a-4b51-8a39-0f6a1f2d7c10", True),
        ("peer_mentor_id", "6f1b4c1e-9d0a-4b51-8a39-0f6a1f2d7c10", False),
        ("reason", "BadDeviceToken", True),
        ("http_status", 410, True),
        ("http_status", 4915112345678, False),
        ("http_status", -1.5e300, False),
        ("final", False, True),
        ("anna@example.org", None, False),
    ],
)
def test_a_field(field: str, value: Any, shown: bool) -> None:
    assert (json.loads(hashed(json.dumps({field: value}))) == {field: value}) is shown


# --- take them out -----------------------------------------------------------------------------------------


def test_exported_corrected_and_enqueued_they_are_recorded(
    bad: Any,
    queue: Queue,
    app: sample.App,
    drain: Drain,
    connection: psycopg.Connection,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad.jsonl"
    assert replay.main(["--export", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{path}:1: [1] $.chapter_id: there is no such chapter" in said
    assert f"{path}:2: [3] $.delivery_channel" in said
    assert (f"replay --discard {bad.id}\n" in said, "S3CR3T" in said) == (True, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["results"][0]["token"] for event in events] == [TOKEN, "token-3"]

    assert enqueue.main([str(path)]) == 1
    assert queue.job_ids == []
    events[0]["chapter_id"], events[1]["delivery_channel"] = str(app.chapters[0]), "fcm"
    path.write_text("\n\n".join(map(json.dumps, events)))
    assert enqueue.main([str(path)]) == 0
    drain()
    keys = "select idempotency_key from public.follow_up_notification_log order by 1"
    assert [key for (key,) in connection.execute(keys)] == ["key-0", "key-1", "key-2", "key-3"]


def test_nothing_is_overwritten_nor_followed(
    bad: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there, target, link = (tmp_path / name for name in ("there", "target", "link"))
    there.write_text("kept")
    link.symlink_to(target)
    for path in (there, link):
        assert replay.main(["--export", str(path)]) == 1
        assert f"{path} exists: nothing is overwritten" in capsys.readouterr().err
    assert (there.read_text(), target.exists()) == ("kept", False)


@pytest.mark.parametrize("name", ["nowhere/bad.jsonl", "x" * 300])
def test_a_file_that_cannot_be_made_is_one_sentence(
    bad: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert replay.main(["--export", name]) == 1
    assert capsys.readouterr().err.startswith("replay: cannot write ")


def test_a_file_that_cannot_be_finished_is_gone_again(
    bad: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("worker.replay.rejected._write", full)
    assert replay.main(["--export", str(path)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_where_no_event_is_rejected_there_is_no_file(
    redis: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(redis, "broken", "worker.servers.postgres.DatabaseFault: gone", data=call([{}]))
    assert replay.main(["--export", str(tmp_path / "bad.jsonl"), "broken"]) == 1
    assert "no rejected event can be exported" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def exported(tmp_path: Path) -> list[Any]:
    path = tmp_path / "bad.jsonl"
    replay.main(["--export", str(path)])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_events_that_the_worker_only_counted_are_exported_as_well(redis: Redis, tmp_path: Path) -> None:
    rejected(redis, list(range(9)), "[1] $: wrong\n[3] $: wrong\nand 3 more: 5, 7, 8")
    assert exported(tmp_path) == [1, 3, 5, 7, 8]


def test_of_a_job_that_has_lost_events_since_all_are_exported(redis: Redis, tmp_path: Path) -> None:
    rejected(redis, [0, 1, 2], "[1] $: wrong")
    redis.hset("rq:job:job", "data", call([1, 2]))
    assert exported(tmp_path) == [1, 2]


def test_what_python_put_there_besides_json_is_written_as_text(redis: Redis, tmp_path: Path) -> None:
    rejected(redis, [{"id": UUID(int=7), "at": datetime(2026, 11, 16, tzinfo=UTC)}], "[0] $: wrong")
    assert exported(tmp_path) == [
        {"id": "00000000-0000-0000-0000-000000000007", "at": "2026-11-16T00:00:00+00:00"}
    ]


def _endless() -> Any:
    event: list[Any] = []
    event.append(event)
    return event


def _bomb() -> Any:
    event: Any = ["x" * 1000]
    for _ in range(40):
        event = [event, event]
    return event


#: Events that are no JSON, or whose JSON has no end.
HOSTILE = {
    "a part of itself": _endless,
    "doubled 40 times": _bomb,
    "bytes": lambda: b"x",
    "odd keys": lambda: {(): 1},
}


@pytest.mark.parametrize("make_event", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_event_is_left_out_and_told(
    redis: Redis, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_event: Any
) -> None:
    rejected(redis, [make_event(), "good"], "[0] $: wrong\n[1] $: wrong\n[999999999] $: wrong")
    assert exported(tmp_path) == ["good"]
    assert capsys.readouterr().err == "replay: left out: job: [0] an event that is no JSON, or too large\n"
    assert replay.main(["--show", "job"]) == 0


@pytest.mark.parametrize("data", [b"", b"x", pickle.dumps(os.system), call({}), call(None)])
def test_data_that_is_no_list_of_events_has_none(redis: Redis, tmp_path: Path, data: bytes) -> None:
    rejected(redis, [], "[0] $: wrong")
    redis.hset("rq:job:job", "data", data)
    assert exported(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--export", "-"],
        ["--export", "f", "--all"],
        ["--export", "f", "--reason", "rejected"],
        ["--export", "f", "--json"],
        ["--export", "f", "--show", "a"],
        ["--export", "f", "--discard", "a"],
        ["--show", "a", "--all"],
        ["--show", "a", "b"],
        ["--show", "a", "--dry-run"],
        ["--show", "a", "--verbose"],
    ],
)
def test_contradictions_are_wrong_usage(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        replay.main(arguments)
    assert (caught.value.code, list(tmp_path.iterdir())) == (2, [])
