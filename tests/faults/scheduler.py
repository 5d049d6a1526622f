"""A scheduler that reserves, sends and enqueues page by page, and may be made to die: `python -m ... FILE`.

It says when it is ready, and starts once its standard input ends. FILE holds what is due as JSON;
DATABASE_URL, REDIS_URL and PROVIDER_URL say where everything is.
"""

import argparse
import json
import os
import random
import signal
import sys
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.connection import AbstractConnection

from worker import fcm, history
from worker.enqueue import enqueue_outcomes, event
from worker.servers.postgres import connect

#: Where a scheduler may die: with its keys reserved, amid its sends, before it enqueues, with half of the
#: transaction on its way to Redis, and with all of it but without the answer.
MOMENTS = ("before-send", "while-sending", "before-enqueue", "half-enqueued", "after-enqueue")
#: Prompts reserved, sent and enqueued together.
PAGE = 40


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_enqueueing(share: float) -> None:
    """Let this process die once it has sent a share of the next transaction."""
    send = AbstractConnection.send_packed_command

    def send_and_die(self: Any, command: Any, check_health: bool = True) -> None:
        packed = b"".join([command] if isinstance(command, bytes) else command)
        if b"MULTI" in packed:
            send(self, [packed[: int(len(packed) * share)]], check_health)  # type: ignore[no-untyped-call]
            die()
        send(self, command, check_health)  # type: ignore[no-untyped-call]

    AbstractConnection.send_packed_command = send_and_die  # type: ignore[method-assign]


def main() -> None:
    """Work through all that is due, in an order of one's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--die", choices=MOMENTS, help="where")
    parser.add_argument("--page", type=int, default=0, help="on which page of prompts of one's own")
    options = parser.parse_args()
    due = json.loads(options.file.read_text())
    random.Random(options.seed).shuffle(due)  # noqa: S311 - no secret
    pages = 0
    with (
        closing(Redis.from_url(os.environ["REDIS_URL"])) as redis,
        closing(connect(os.environ["DATABASE_URL"])) as connection,
        closing(HTTPConnection(urlsplit(os.environ["PROVIDER_URL"]).netloc)) as provider,
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
        for start in range(0, len(due), PAGE):
            page = {prompt["idempotency_key"]: prompt for prompt in due[start : start + PAGE]}
            mine = history.reserve(connection, page)
            if mine:
                pages += 1
            moment = options.die if pages == options.page and mine else None
            if moment == "before-send":
                die()
            events = []
            for number, key in enumerate(sorted(mine)):
                if moment == "while-sending" and number == len(mine) // 2:
                    die()
                events.append(sent(provider, page[key]))
            if moment == "before-enqueue":
                die()
            if moment in ("half-enqueued", "after-enqueue"):
                die_while_enqueueing(0.5 if moment == "half-enqueued" else 1.0)
            enqueue_outcomes(redis, events)


def sent(provider: HTTPConnection, prompt: dict[str, Any]) -> dict[str, Any]:
    """Send one prompt; returns its event."""
    attempted_at = datetime.now(UTC)
    provider.request("POST", "/", prompt["idempotency_key"])
    name = provider.getresponse().read().decode()
    return event(
        **prompt,
        delivery_channel="fcm",
        attempted_at=attempted_at,
        results=[fcm.result(f"token of {prompt['idempotency_key']}", name)],
    )


if __name__ == "__main__":
    main()
