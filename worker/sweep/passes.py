"""Find device tokens that died in silence, page by page through the app's token table.

A device that is never sent to is never reported dead. So FCM is asked about each of its tokens with a dry
run; the answers are judged by the rules for those of sends, and prune through the same statement, under a
brake of their own. APNs has no dry run: its tokens are counted and not checked. No server can refresh a
token, only the app can register a new one; that is what the ages are counted for.

Sources: https://firebase.google.com/docs/cloud-messaging/manage-tokens (a token is stale after a month
without a connection; Android's expire after 270 days),
https://firebase.google.com/docs/cloud-messaging/scale-fcm (a project's quota: 600,000 messages a minute)
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any, NamedTuple

import msgspec
import psycopg
from redis import Redis, RedisError, ResponseError
from redis.exceptions import LockError
from rq.defaults import RQ_KEY_PREFIX

from .. import logs
from ..events import Channel
from ..judge.classify import StaleToken, Verdict
from ..judge.rules import PRESUMED_DEAD, TRANSIENT, UNPROVEN
from ..record import brake
from ..record.notices import token_pruned
from ..record.prune import Token
from ..record.recording import Tell
from ..record.tokens import Tokens
from ..servers.redis import impatient
from .dryrun import check, is_alive, kind

#: FCM checks a second: 1 % of the quota that the app's own pushes share.
RATE = 100
#: Tokens read, checked and pruned together.
PAGE = 100
#: What one job may take, in seconds: the outcomes behind it in the queue wait that long.
JOB_SECONDS = 5.0
#: The periodic job starts over so long after the end of a pass.
EVERY = timedelta(days=7)

#: Where a pass has got to, and what it has counted.
STATE_KEY = f"{RQ_KEY_PREFIX}:notiflog:sweep"
_LOCK_KEY = f"{STATE_KEY}:lock"
# Longer than a page takes when FCM is slow (firebase-admin waits 120 s, and tries again).
_LOCK_SECONDS = 900

# So few tokens of a page may be at fault themselves; after so many tries they are stepped over.
_FEW, _TRIES = 10, 3
_CREDENTIALS = ("unauthenticated", "permission_denied", "third_party_auth_error")
# Seconds that a time may lie ahead of Redis' clock.
_TOLERANCE = 300
_DAY = 86_400
#: Ages worth a report, in seconds.
AGES = {"older_than_30_days": 30 * _DAY, "older_than_270_days": 270 * _DAY}


class Busy(Exception):
    """Another sweep is under way."""


class NoVerdict(Exception):
    """FCM said nothing of most tokens of a page: going on makes no sense now."""


class State(NamedTuple):
    """A pass over the table."""

    #: The last token done, in PostgreSQL's order; empty: none yet.
    after: str = ""
    counts: Counter[str] = Counter()  # noqa: RUF012 - never changed in place
    #: Seconds since the epoch, by Redis' clock; None: under way.
    finished_at: float | None = None
    #: How often the page after `after` brought no verdict.
    tries: int = 0


_Stored = tuple[str, dict[str, int], float | None, int]


def pages(
    connection: psycopg.Connection,
    tokens: Tokens,
    state: State,
    *,
    redis: Redis | None,
    prune: bool = True,
    rate: float = RATE,
    tell: Tell | None = None,
) -> Iterator[State]:
    """Check the table from where `state` is, page by page; yields the state after each.

    `redis`: where the brake counts; None: without it. `prune`: False only counts. `rate`: checks a second.
    `tell`: called with what an app is told of each page. Raises psycopg.Error, NoProject and NoVerdict, all
    of them with the page not done.
    """
    while page := tokens.after(connection, "fcm", state.after, PAGE):
        started = time.monotonic()
        checked = [row.token for row in page if kind(row.token) in ("fcm", "fid")]
        verdicts = _confirmed(check(checked))
        if 2 * sum(map(_says_nothing, verdicts)) > len(verdicts) and not _is_stuck(state, verdicts):
            raise NoVerdict(_reasons(verdicts))
        counts = state.counts + _census(page) + _judged(verdicts)
        notices = [
            StaleToken(token, page[0].read_at, verdict.reason, "fcm")
            for token, verdict in zip(checked, verdicts, strict=True)
            if verdict.prunes
        ]
        counts += _prune(connection, tokens, redis, notices, verdicts, tell) if prune else Counter()
        for token, verdict in zip(checked, verdicts, strict=True):
            if verdict.prunes:
                logs.info(
                    "token_dead",
                    reason=verdict.reason,
                    evidence=verdict.evidence,
                    token=logs.token_hash(token),
                )
        state = State(page[-1].token, counts)
        yield state
        time.sleep(max(0.0, len(checked) / rate - (time.monotonic() - started)))


def go_on(
    connection: psycopg.Connection, tokens: Tokens, redis: Redis, tell: Tell | None = None
) -> Counter[str]:
    """The periodic job: some seconds of the pass that is under way, or due; returns its counts so far."""
    deadline = time.monotonic() + JOB_SECONDS
    with suppress(Busy), alone(redis), closing(impatient(redis)) as brakes:
        state = load(redis)
        if state.finished_at is not None:
            if _now(redis) - state.finished_at < EVERY.total_seconds():
                return state.counts
            state = State()
        done = state
        try:
            for done in pages(connection, tokens, state, redis=brakes, tell=tell):
                save(redis, done)
                if time.monotonic() > deadline:
                    return done.counts
        except NoVerdict as error:
            pause(redis, done)
            logs.warning("sweep_paused", problem=str(error))
        else:
            finish(redis, done)
        return done.counts
    return Counter()


@contextmanager
def alone(redis: Redis) -> Iterator[Any]:
    """Keep other sweeps out; yields the lock, to be extended by who takes long. Raises Busy."""
    if redis.pttl(_LOCK_KEY) == -1:  # whoever made it without an end, it was none of us
        redis.expire(_LOCK_KEY, _LOCK_SECONDS)
    lock = redis.lock(_LOCK_KEY, timeout=_LOCK_SECONDS)
    if not lock.acquire(blocking=False):
        raise Busy
    try:
        yield lock
    finally:
        with suppress(LockError, RedisError):
            lock.release()


def load(redis: Redis) -> State:
    """The state that `save` left; a new one where there is none, or none that makes sense."""
    try:
        after, counts, finished_at, tries = msgspec.json.decode(redis.get(STATE_KEY) or b"", type=_Stored)
    except (msgspec.DecodeError, ResponseError):  # the latter: somebody put another thing there
        return State()
    if "\0" in after or (finished_at or 0) > _now(redis) + _TOLERANCE:
        return State()
    return State(after, Counter(counts), finished_at, tries)


def save(redis: Redis, state: State) -> None:
    """Remember how far a pass has got."""
    redis.set(STATE_KEY, msgspec.json.encode(state))


def pause(redis: Redis, state: State) -> None:
    """Remember that the next page brought no verdict."""
    save(redis, state._replace(tries=state.tries + 1))


def finish(redis: Redis, state: State) -> None:
    """Remember that a pass is complete, and log what it found."""
    save(redis, State("", state.counts, _now(redis)))
    logs.info("tokens_swept", **state.counts)


def _now(redis: Redis) -> float:
    seconds, _ = redis.time()
    return float(seconds)


def _confirmed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, of which a bare 404 proves something only if the project answers for another token.

    A project that was deleted answers so to everything.
    """
    if any(map(is_alive, verdicts)):
        return list(verdicts)
    return [
        Verdict(verdict.reason, UNPROVEN) if verdict.evidence is PRESUMED_DEAD else verdict
        for verdict in verdicts
    ]


def _says_nothing(verdict: Verdict) -> bool:
    """Whether an answer is about the service or our credentials rather than about the token."""
    return verdict.evidence is TRANSIENT or verdict.reason in _CREDENTIALS


def _is_stuck(state: State, verdicts: Sequence[Verdict]) -> bool:
    """Whether a few tokens are to blame, which get no verdict however often FCM is asked."""
    named = any(verdict.reason in _CREDENTIALS for verdict in verdicts)
    return len(verdicts) < _FEW and state.tries >= _TRIES and not named


def _reasons(verdicts: Sequence[Verdict]) -> str:
    reasons = Counter(verdict.reason for verdict in verdicts)
    return ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common())


def _census(page: Sequence[Token]) -> Counter[str]:
    counts = Counter({"tokens": len(page)})
    for row in page:
        counts[kind(row.token)] += 1
        if row.age is None:
            counts["age_unknown"] += 1
        else:
            counts.update([name for name, age in AGES.items() if row.age > age])
    return counts


def _judged(verdicts: Sequence[Verdict]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        sign = "alive" if is_alive(verdict) else "dead" if verdict.prunes else "no_verdict"
        counts[sign] += 1
        if sign == "no_verdict":
            counts[f"no_verdict_{verdict.reason}"] += 1
    return counts


def _prune(
    connection: psycopg.Connection,
    tokens: Tokens,
    redis: Redis | None,
    notices: Sequence[StaleToken],
    verdicts: Sequence[Verdict],
    tell: Tell | None,
) -> Counter[str]:
    alive: Counter[Channel] = Counter({"fcm": sum(map(is_alive, verdicts))})
    dead: Counter[Channel] = Counter({"fcm": len(notices)})
    if brake.hold(redis, +alive, +dead, "sweep").channels:
        return Counter({"withheld": len(notices)})
    if not notices:
        return Counter()
    done = tokens.prune_apart(connection, notices)
    if tell and done.pruned:
        tell([token_pruned(notice) for notice in notices if notice.token in done.pruned])
    return Counter({"pruned": len(done.pruned), "kept": len(done.kept), "refused": len(done.refused)})
