"""Numbers in Redis: of few names, kept by the day for three months; whoever writes there spoils no more."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from redis import Redis

from tests.judge.cases import CASES
from worker.judge.classify import classify
from worker.record import counters
from worker.record.numbers import ANSWERS, LAG, NAMES, TURN, of_duration, of_fault

PRUNED, DELIVERED = "tokens:fcm:pruned", "outcomes:fcm:delivered"
SOME = Counter({PRUNED: 2, DELIVERED: 3})


def today(redis: Redis) -> date:
    return datetime.fromtimestamp(redis.time()[0], UTC).date()


def day_key(day: date) -> str:
    return f"{counters.KEY}:day:{(day - date(1970, 1, 1)).days}"


def test_every_answer_of_the_cases_has_a_name() -> None:
    verdicts = [(case.channel, classify(case.channel, case.status, case.body)) for case in CASES]
    assert {(channel, verdict.reason, verdict.evidence) for channel, verdict in verdicts} <= set(ANSWERS)


def test_there_are_few_names() -> None:
    assert len(set(NAMES)) == len(NAMES) < 250


def test_numbers_add_up(redis: Redis) -> None:
    counters.count(redis, SOME)
    counters.count(redis, SOME)
    assert Counter(counters.read(redis)) == Counter({PRUNED: 4, DELIVERED: 6})


def test_answers_and_tokens_are_also_kept_by_the_day(redis: Redis) -> None:
    counters.count(redis, SOME)
    ((day, numbers),) = counters.read_days(redis, 90).items()
    assert (day, Counter(numbers)) == (today(redis), Counter({PRUNED: 2}))


def test_a_day_is_kept_for_90_days_and_the_sum_for_ever(redis: Redis) -> None:
    counters.count(redis, SOME)
    assert 89 * 86400 < redis.ttl(day_key(today(redis))) <= 90 * 86400
    assert redis.ttl(counters.KEY) == -1


def test_days_without_numbers_are_missing(redis: Redis) -> None:
    for back in (0, 3, 89, 90):
        redis.hset(day_key(today(redis) - timedelta(days=back)), PRUNED, back + 1)
    found = counters.read_days(redis, 90)
    assert [numbers[PRUNED] for numbers in found.values()] == [90, 4, 1]
    assert list(found) == sorted(found)


@pytest.mark.parametrize("seconds", [-5, 0, 0.004, 0.01, 3.5, 60, 61, 1e9])
def test_a_duration_is_in_one_bucket_and_in_the_sum(seconds: float) -> None:
    counted = of_duration(seconds)
    assert sum(counted[name] for name in TURN.buckets) == 1
    assert counted[TURN.total] == max(0, round(seconds * 1000))


def test_a_bucket_holds_what_is_up_to_its_bound() -> None:
    assert LAG.of([1, 5, 5.01])["lag:le:5"] == 1


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (psycopg.errors.DeadlockDetected(), "faults:rollback"),
        (psycopg.errors.DiskFull(), "faults:resources"),
        (psycopg.errors.LockNotAvailable(), "faults:locked"),
        (psycopg.errors.AdminShutdown(), "faults:operator"),
        (psycopg.errors.RaiseException(), "faults:other"),
        (psycopg.OperationalError(), "faults:connection"),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, Exception) else case,
)
def test_a_fault_counts_by_its_class(error: psycopg.Error, name: str) -> None:
    assert of_fault(error) == name
    assert name in NAMES


# --- what somebody may put there --------------------------------------------------------------------------

OTHER_KINDS: dict[str, Callable[[Any, str], object]] = {
    "string": lambda redis, key: redis.set(key, "1"),
    "list": lambda redis, key: redis.rpush(key, "1"),
    "zset": lambda redis, key: redis.zadd(key, {PRUNED: 1}),
    "stream": lambda redis, key: redis.xadd(key, {PRUNED: "1"}),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_key_of_another_type_gives_way(redis: Redis, kind: str) -> None:
    for key in (counters.KEY, day_key(today(redis))):
        OTHER_KINDS[kind](redis, key)
    assert not any(counters.read(redis).values())
    assert counters.read_days(redis, 90) == {}
    counters.count(redis, SOME)
    assert Counter(counters.read(redis)) == SOME
    assert counters.read_days(redis, 1)[today(redis)][PRUNED] == 2


ODD = ["text", "", "-5", "1e3", "nan", "inf", " 1", "9" * 18, "9223372036854775807", "9" * 400, "\xff", "²"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:20] or "empty")
def test_what_is_no_number_counts_for_nothing(redis: Redis, odd: str) -> None:
    redis.hset(counters.KEY, PRUNED, odd)
    assert counters.read(redis)[PRUNED] == 0


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:20] or "empty")
def test_it_spoils_no_other_number(redis: Redis, odd: str) -> None:
    redis.hset(counters.KEY, PRUNED, odd)
    redis.hset(day_key(today(redis)), PRUNED, odd)
    counters.count(redis, SOME)
    assert counters.read(redis)[DELIVERED] == 3


def test_however_many_names_somebody_puts_there_only_the_known_are_read(redis: Redis) -> None:
    for key in (counters.KEY, day_key(today(redis))):
        redis.hset(key, mapping={f"x{number}": "1" for number in range(10_000)})
    redis.config_resetstat()
    counters.count(redis, SOME)
    assert Counter(counters.read(redis)) == SOME
    assert not redis.info("commandstats").keys() & {"cmdstat_hgetall", "cmdstat_hkeys", "cmdstat_hscan"}


def test_a_full_redis_loses_numbers_and_says_nothing(redis: Redis) -> None:
    used = redis.info("memory")["used_memory"]
    redis.config_set("maxmemory", used // 2)
    try:
        counters.count(redis, SOME)
    finally:
        redis.config_set("maxmemory", 0)
    assert not any(counters.read(redis).values())


def test_outside_rq_nothing_is_counted() -> None:
    counters.count(None, SOME)
