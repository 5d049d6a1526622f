"""The brake's arithmetic, on a real Valkey: what counts, for how long, for whom; and a server gone silent."""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from worker.events import Channel, decode
from worker.judge.classify import Outcome, fold
from worker.record import brake
from worker.servers.redis import impatient

Logged = Callable[[], list[dict[str, Any]]]

ALIVE = (200, None)
DEAD: dict[str, tuple[int, Any]] = {
    "fcm": (404, {"error": {"details": [{"errorCode": "UNREGISTERED"}]}}),
    "apns": (410, {"reason": "Unregistered"}),
}


def outcome(results: Sequence[tuple[int | None, Any]], channel: Channel = "fcm") -> Outcome:
    some_id = str(UUID(int=1))
    payload = {
        "peer_mentor_id": some_id,
        "chapter_id": some_id,
        "scenario_rule_id": some_id,
        "idempotency_key": "key",
        "delivery_channel": channel,
        "attempted_at": "2026-11-16T06:00:00Z",
        "results": [
            {"token": f"token-{number}", "http_status": status, "body": body}
            for number, (status, body) in enumerate(results)
        ],
    }
    return fold(decode(payload))


def some(alive: int = 0, dead: int = 0, channel: Channel = "fcm") -> list[Outcome]:
    return [outcome([ALIVE] * alive + [DEAD[channel]] * dead, channel)]


def held(redis: Redis | None, outcomes: list[Outcome], source: brake.Source = "sends") -> frozenset[Channel]:
    return brake.hold(redis, *brake.tally(outcomes), source).channels


def put(redis: Redis, name: str, number: int, minutes_ago: int = 0) -> None:
    """Answers as other workers counted them."""
    then = redis.time()[0] - 60 * minutes_ago
    redis.hincrby(f"{brake.key('sends')}:minute:{then // 60}", name, number)
    redis.hincrby(f"{brake.key('sends')}:hour:{then // 3600}", name, number)


@pytest.mark.parametrize(
    ("alive", "dead", "on"),
    [
        (0, 49, False),
        (0, 50, True),
        (24, 25, False),
        (24, 26, True),
        (25, 25, False),
        (500, 501, True),
        (501, 500, False),
        (0, 0, False),
    ],
)
def test_more_than_half_of_fifty(redis: Redis, alive: int, dead: int, on: bool) -> None:
    assert held(redis, some(alive, dead)) == ({"fcm"} if on else set())


def test_answers_add_up_over_turns_and_workers(redis: Redis, valkey_url: str) -> None:
    other = Redis.from_url(valkey_url)
    channels = [held(connection, some(dead=25)) for connection in (redis, other, redis)]
    other.close()
    assert channels == [set(), {"fcm"}, {"fcm"}]


def test_accepted_pushes_of_turns_without_a_death_notice_count(redis: Redis) -> None:
    assert held(redis, some(alive=100)) == set()
    assert held(redis, some(dead=60)) == set()


@pytest.mark.parametrize("channel", ["fcm", "apns"])
def test_each_channel_has_its_own(redis: Redis, channel: Channel) -> None:
    other: Channel = "apns" if channel == "fcm" else "fcm"
    assert held(redis, [*some(dead=50, channel=channel), *some(dead=1, channel=other)]) == {channel}


def test_the_sweep_has_its_own_credentials_and_so_its_own_count(redis: Redis) -> None:
    held(redis, some(alive=1000))
    assert held(redis, some(dead=50), "sweep") == {"fcm"}
    assert held(redis, some(dead=50)) == set()


@pytest.mark.parametrize(
    "answer",
    [
        (503, None),
        (None, None),
        (429, None),
        (403, {"error": {"details": [{"errorCode": "SENDER_ID_MISMATCH"}]}}),
        (400, None),
    ],
)
def test_answers_that_say_nothing_of_the_token_neither_count_nor_outvote(
    redis: Redis, answer: tuple[int | None, Any]
) -> None:
    silent = outcome([answer] * 1000)
    assert held(redis, [silent, *some(dead=49)]) == set()
    assert held(redis, [silent, *some(dead=1)]) == {"fcm"}


@pytest.mark.parametrize(("minutes_ago", "on"), [(0, True), (8, True), (10, False), (600, False)])
def test_only_the_last_ten_minutes_count_where_they_hold_enough(
    redis: Redis, minutes_ago: int, on: bool
) -> None:
    put(redis, "fcm:dead", 100, minutes_ago)
    assert held(redis, some(alive=60, dead=1)) == ({"fcm"} if on else set())


@pytest.mark.parametrize("hours", [1, 5, 24, 167])
def test_at_low_volume_the_window_stretches_until_it_holds_enough(redis: Redis, hours: int) -> None:
    put(redis, "fcm:dead", 45, 60 * hours)
    assert held(redis, some(dead=4)) == set()
    assert held(redis, some(dead=1)) == {"fcm"}


def test_it_stretches_no_further_than_it_must(redis: Redis) -> None:
    put(redis, "fcm:dead", 1000, 60 * 9)
    put(redis, "fcm:alive", 60, 60 * 5)
    assert held(redis, some(dead=10)) == set()


def test_and_no_further_than_a_week(redis: Redis) -> None:
    put(redis, "fcm:dead", 1000, 60 * 24 * 8)
    assert held(redis, some(dead=10)) == set()


def test_the_worst_at_low_volume_are_49_live_tokens_in_all(redis: Redis) -> None:
    """45 wrong notices in each of twenty windows, some hours apart."""
    pruned = 0
    for window in range(20, 0, -1):
        for _ in range(45):
            put(redis, "fcm:dead", 1, 60 * 4 * window)
            now = brake.recent(redis, "sends")["fcm"]
            pruned += not brake.is_on(now.alive, now.dead)
    assert pruned == 49


def test_minutes_and_hours_of_the_future_count_for_nothing(redis: Redis) -> None:
    now = redis.time()[0]
    for ahead in range(1, 20):
        redis.hset(f"{brake.key('sends')}:minute:{now // 60 + ahead}", "fcm:dead", "10000")
        redis.hset(f"{brake.key('sends')}:hour:{now // 3600 + ahead}", "fcm:alive", "100000")
    assert held(redis, some(dead=49)) == set()
    assert held(redis, some(dead=1)) == {"fcm"}


def test_what_is_past_is_not_kept_in_redis(redis: Redis) -> None:
    held(redis, some(alive=1))
    minute, hour = sorted(redis.scan_iter(f"{brake.key('sends')}:*"), reverse=True)
    assert 0 < redis.ttl(minute) <= 600
    assert 0 < redis.ttl(hour) <= 7 * 24 * 3600


def test_however_many_names_somebody_puts_there_none_is_looked_at(redis: Redis) -> None:
    held(redis, some(alive=1))
    for bucket in redis.scan_iter(f"{brake.key('sends')}:*"):
        redis.hset(bucket, mapping={f"x{number}": "1" for number in range(10_000)})
    redis.config_resetstat()
    assert held(redis, some(dead=50)) == {"fcm"}
    calls = redis.info("commandstats")
    assert not calls.keys() & {"cmdstat_hgetall", "cmdstat_hkeys", "cmdstat_hscan"}


@pytest.mark.parametrize("value", ["many", "-5e", "", "nan"])
def test_a_number_that_is_none_counts_for_nothing(redis: Redis, value: str) -> None:
    hour = redis.time()[0] // 3600 - 3
    redis.hset(f"{brake.key('sends')}:hour:{hour}", "fcm:alive", value)
    assert held(redis, some(dead=50)) == {"fcm"}


def test_a_turn_costs_one_round_trip_and_one_without_answers_none(redis: Redis) -> None:
    held(redis, some(alive=1))  # loads the script
    redis.config_resetstat()
    held(redis, some(alive=3, dead=3))
    held(redis, [outcome([(503, None)]), outcome([])])
    calls = {name: stats["calls"] for name, stats in redis.info("commandstats").items()}
    assert calls["cmdstat_evalsha"] == 1
    assert not calls.keys() & {"cmdstat_eval", "cmdstat_script|load", "cmdstat_multi"}


@pytest.mark.parametrize(
    "odd", ["text", "1e400", "inf", "nan", "-1000000", "9223372036854775807", "", "\xff"]
)
@pytest.mark.parametrize("unit", ["minute", "hour"])
def test_what_is_no_number_of_answers_counts_nothing(redis: Redis, unit: str, odd: str) -> None:
    seconds = {"minute": 60, "hour": 3600}[unit]
    for back in range(3):
        bucket = f"{brake.key('sends')}:{unit}:{redis.time()[0] // seconds - back}"
        redis.hset(bucket, mapping={"fcm:alive": odd, "fcm:dead": odd})
    assert held(redis, some(dead=49)) == set()
    assert held(redis, some(dead=1)) == {"fcm"}


@pytest.mark.parametrize("unit", ["minute", "hour"])
def test_a_bucket_of_another_type_is_emptied(redis: Redis, unit: str) -> None:
    seconds = {"minute": 60, "hour": 3600}[unit]
    for back in range(3):
        redis.set(f"{brake.key('sends')}:{unit}:{redis.time()[0] // seconds - back}", "not a hash")
    assert held(redis, some(dead=49)) == set()
    assert held(redis, some(dead=1)) == {"fcm"}


def test_the_future_and_names_that_nobody_asks_for_are_never_read(redis: Redis) -> None:
    for ahead in (1, 60, 600):
        put(redis, "fcm:alive", 100_000, minutes_ago=-ahead)
    bucket = f"{brake.key('sends')}:hour:{redis.time()[0] // 3600}"
    redis.hset(bucket, mapping={f"forged:{number}": "1" for number in range(1000)})
    redis.config_resetstat()
    assert held(redis, some(dead=50)) == {"fcm"}
    assert "cmdstat_hgetall" not in redis.info("commandstats")


def test_answers_that_were_counted_before_ask_again_and_count_nothing(redis: Redis) -> None:
    assert held(redis, some(dead=50)) == {"fcm"}
    nothing: Counter[Channel] = Counter()
    for _ in range(3):
        assert brake.hold(redis, nothing, nothing, again=["fcm"]).channels == {"fcm"}
    assert brake.recent(redis, "sends")["fcm"].dead == 50


def test_outside_rq_there_is_no_brake() -> None:
    assert held(None, some(dead=100)) == set()


def test_the_line_says_what_it_saw(redis: Redis, logged: Logged) -> None:
    held(redis, some(alive=5, dead=60))
    (line,) = logged()
    assert (line["event"], line["level"], line["channel"]) == ("brake_on", "error", "fcm")
    assert (line["dead"], line["answers"], line["minutes"]) == (60, 65, 10)


class TestRedisAway:
    @pytest.fixture
    def nobody(self) -> Iterator[Redis]:
        """A client of a server that is gone."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        client = impatient(Redis(port=port))
        yield client
        client.close()

    def test_tokens_are_kept_and_that_is_said(self, nobody: Redis, logged: Logged) -> None:
        assert held(nobody, some(alive=100, dead=1)) == {"fcm"}
        assert [(line["event"], line["channels"]) for line in logged()] == [("brake_blind", ["fcm"])]

    def test_without_a_death_notice_there_is_nothing_to_keep_or_say(
        self, nobody: Redis, logged: Logged
    ) -> None:
        assert not held(nobody, some(alive=100))
        assert logged() == []

    def test_a_server_that_does_not_answer_costs_a_second(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = impatient(Redis(port=silent.getsockname()[1]))
            started = time.monotonic()
            assert held(client, some(dead=1)) == {"fcm"}
            assert time.monotonic() - started < 3
            client.close()

    def test_an_error_of_redis_keeps_the_tokens(self, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(brake, "_SCRIPT", "return redis.error_reply('ERR fault')")
        assert held(redis, some(dead=1)) == {"fcm"}
