"""What a scheduler spends on an event: `python tests/benchmarks/enqueue.py`.

Processor time of its own process, so that a busy machine matters little: `enqueue_outcomes` of 10,000 events
in jobs of 500 and of one, beside RQ's own `enqueue_many` of the same jobs, which checks nothing; the same
events as 32 threads have them one at a time, each alone and by a `Batcher`; and `fcm.results` of a batch of
500 answers. Medians, and the fastest and slowest rounds.
"""

# ruff: noqa: T201 - a command prints

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from firebase_admin import messaging
from redis import Redis
from rq import Queue, Retry

from worker import fcm
from worker.batcher import Batcher
from worker.demo import sandbox
from worker.enqueue import JOB, QUEUE, RETRIES, enqueue_outcomes

EVENTS = 10_000
BATCH = 500
THREADS = 32


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Processor time of the scheduler's side.")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="of each (%(default)s)")
    rounds = parser.parse_args().rounds
    tokens = [f"{n:0140}" for n in range(BATCH)]
    responses = [
        messaging.SendResponse({"name": f"projects/example/messages/{n}"}, None) for n in range(BATCH)
    ]
    answer = messaging.BatchResponse(responses)
    print(f"fcm.results of {BATCH}: {_microseconds(lambda: fcm.results(tokens, answer), rounds, 1000)} ms")
    events = [_event(n) for n in range(EVENTS)]
    with sandbox.directory() as directory, sandbox.valkey(directory) as url, Redis.from_url(url) as redis:
        for per_job in (BATCH, 1):
            for name, enqueue in (("enqueue_outcomes", enqueue_outcomes), ("RQ's enqueue_many", _plain)):

                def run(
                    enqueue: Callable[..., Any] = enqueue, redis: Redis = redis, per_job: int = per_job
                ) -> None:
                    enqueue(redis, events, per_job=per_job)

                spent = _microseconds(run, rounds, EVENTS, redis.flushall)
                print(f"{name}, jobs of {per_job}: {spent} us an event")
        with ThreadPoolExecutor(THREADS) as threads:

            def alone(event: dict[str, Any]) -> None:
                enqueue_outcomes(redis, [event])

            for name, one in (("enqueue_outcomes", alone), ("Batcher", Batcher(redis).enqueue)):

                def run_all(one: Callable[[dict[str, Any]], None] = one) -> None:
                    list(threads.map(one, events))

                spent = _microseconds(run_all, rounds, EVENTS, redis.flushall)
                jobs = Queue(QUEUE, connection=redis).count
                print(f"{name}, {THREADS} threads: {spent} us an event, {EVENTS / jobs:.0f} a job")


def _plain(redis: Redis, events: list[dict[str, Any]], *, per_job: int) -> None:
    Queue(QUEUE, connection=redis).enqueue_many(
        [
            Queue.prepare_data(JOB, args=(events[n : n + per_job],), retry=Retry(max=RETRIES), description="")
            for n in range(0, len(events), per_job)
        ]
    )


def _event(n: int) -> dict[str, Any]:
    return {
        "peer_mentor_id": str(UUID(int=n)),
        "chapter_id": str(UUID(int=n % 300)),
        "scenario_rule_id": str(UUID(int=n % 200)),
        "date_window": "2026-W47",
        "delivery_channel": "fcm",
        "attempted_at": "2026-11-16T06:00:00+00:00",
        "results": [
            {
                "token": f"{n:0140}",
                "http_status": 200,
                "body": {"name": f"projects/example/messages/0:{n}"},
            }
        ],
    }


def _microseconds(
    run: Callable[[], object], rounds: int, share: int, before: Callable[[], object] = lambda: None
) -> str:
    """Processor time of a run in microseconds, divided by `share`: the median, the least and the most."""
    spent = []
    for _ in range(rounds):
        before()
        started = time.process_time()
        run()
        spent.append((time.process_time() - started) / share * 1e6)
    return f"{statistics.median(spent):.2f} ({min(spent):.2f} to {max(spent):.2f})"


if __name__ == "__main__":
    main()
