"""Judge send results: what each answer proves about its token, and what became of the prompt as a whole.

Pure: answers in, verdicts and outcomes out.

Sources: https://firebase.google.com/docs/projects/manage-installations (a Firebase installation id, FID),
https://firebase.google.com/docs/cloud-messaging/ios/live-activity (Live Activities)
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from ..events import Channel, Event, SendResult
from .answers import read_apns, read_fcm
from .rules import ACCEPTED, APNS_RULES, FCM_RULES, PRESUMED_DEAD, PROVEN_DEAD, TRANSIENT, UNPROVEN, Evidence

Status = Literal["delivered", "failed", "skipped"]

# A FID is 22 characters of base64url; its first four bits are 0111.
_FID = re.compile(r"[cdef][A-Za-z0-9_-]{21}")


class Verdict(Struct, frozen=True, gc=False):
    """The judgement of one send result."""

    reason: str
    evidence: Evidence
    #: APNs' word on when the token died; a device registered later is alive.
    dead_since: datetime | None = None

    @property
    def prunes(self) -> bool:
        """Whether the token is to be deleted, unless its device registered again meanwhile."""
        return self.evidence in (PROVEN_DEAD, PRESUMED_DEAD)


#: The activity is over, the app is still there.
LIVE_ACTIVITY_ENDED = Verdict("live_activity_ended", UNPROVEN)
#: FCM has no registration token of that name; asked for the installation id it may know the device well.
FID_SENT_AS_TOKEN = Verdict("fid_sent_as_token", UNPROVEN)


class StaleToken(Struct, frozen=True, gc=False):
    """A token to delete where it was registered before `before`."""

    token: str
    before: datetime
    reason: str
    #: Whose answer it was.
    channel: Channel


class Failure(Struct, frozen=True, gc=False):
    """A send result that was not accepted, for the log."""

    token: str
    channel: Channel
    http_status: int | None
    verdict: Verdict


class Outcome(Struct, frozen=True, gc=False):
    """What became of one prompt: the row to write, and the tokens found dead on the way."""

    peer_mentor_id: UUID
    chapter_id: UUID
    scenario_rule_id: UUID
    delivered_at: datetime
    delivery_channel: Channel
    idempotency_key: str
    status: Status
    #: Why it failed or was skipped; None when delivered.
    reason: str | None
    #: False: no row yet, the sender will try again.
    final: bool
    #: Tokens with a death notice; see `stale_tokens` for what becomes of them.
    stale: tuple[StaleToken, ...]
    #: Tokens that were accepted, with the time of sending and the channel.
    alive: tuple[tuple[str, datetime, Channel], ...]
    failures: tuple[Failure, ...]


# Most answers are alike: none needs a verdict of its own.
_FCM = [(rule.matches, Verdict(rule.reason, rule.evidence)) for rule in FCM_RULES]
_APNS = [(rule.matches, Verdict(rule.reason, rule.evidence)) for rule in APNS_RULES]


def classify(channel: Channel, http_status: int | None, body: object) -> Verdict:
    """Judge one answer. Never raises, whatever the body is.

    `http_status`: HTTP status, None when there was no answer. `body`: the answer as it came.
    """
    if channel == "fcm":
        fcm = read_fcm(http_status, body)
        for of_fcm, verdict in _FCM:
            if of_fcm(fcm):
                return verdict
    apns = read_apns(http_status, body)
    for of_apns, verdict in _APNS:
        if of_apns(apns):
            since = apns.dead_since
            return Verdict(verdict.reason, verdict.evidence, since) if since else verdict
    raise AssertionError("the last rule of each table matches everything")


def is_fid(token: str) -> bool:
    """Whether a value has the form of a Firebase installation id; a registration token has a colon in it."""
    return _FID.fullmatch(token) is not None


def fold(event: Event) -> Outcome:
    """Fold an event's send results into what became of the prompt.

    Delivered when any result was accepted, failed when none was, skipped when there were none. Apart from the
    channel (that of the first accepted result), the order of the results does not matter.
    """
    alive: list[tuple[str, datetime, Channel]] = []
    accepted_by: Channel | None = None
    failures: list[Failure] = []
    stale: list[StaleToken] = []
    for result in event.results or ():
        channel = result.delivery_channel or event.delivery_channel
        sent_at = result.sent_at or event.attempted_at
        verdict = classify(channel, result.http_status, result.body)
        if verdict.evidence is ACCEPTED:
            alive.append((result.token, sent_at, channel))
            accepted_by = accepted_by or channel
            continue
        if verdict.prunes and (misplaced := _misplaced(result, channel)):
            verdict = misplaced
        failures.append(Failure(result.token, channel, result.http_status, verdict))
        if verdict.prunes:
            before = min(sent_at, verdict.dead_since or sent_at)
            stale.append(StaleToken(result.token, before, verdict.reason, channel))

    status: Status
    if accepted_by:
        status, reason = "delivered", None
    elif failures:
        status, reason = "failed", min(map(_severity, failures))[1]
    else:
        status, reason = "skipped", event.skipped or "no_results"
    return Outcome(
        event.peer_mentor_id,
        event.chapter_id,
        event.scenario_rule_id,
        event.attempted_at,
        accepted_by or event.delivery_channel,
        event.key,
        status,
        reason,
        event.final,
        tuple(stale),
        tuple(alive),
        tuple(failures),
    )


def stale_tokens(outcomes: Sequence[Outcome]) -> list[StaleToken]:
    """The tokens to prune after some outcomes: those with a death notice and no later sign of life."""
    stale = [notice for outcome in outcomes for notice in outcome.stale]
    if not stale:
        return stale
    last_seen: dict[str, datetime] = {}
    # Of all tokens that were accepted only those are looked at that may be meant: in whatever case, by FCM as
    # the very same.
    meant = {notice.token.lower() for notice in stale}
    for outcome in outcomes:
        for token, sent_at, channel in outcome.alive:
            if token.lower() in meant:
                for name in (token, identity(token, channel)):
                    last_seen[name] = max(sent_at, last_seen.get(name, sent_at))
    if not last_seen:
        return stale
    return [
        notice
        for notice in stale
        if all(
            name not in last_seen or last_seen[name] < notice.before
            for name in (notice.token, identity(notice.token, notice.channel))
        )
    ]


def identity(token: str, channel: Channel) -> str:
    """What two spellings of one token share: APNs' are hexadecimal, "AB" and "ab" are one."""
    hexadecimal = channel == "apns" and not token.strip("0123456789abcdefABCDEF")
    return f"hex {token.lower()}" if hexadecimal else f"as sent {token}"


def _misplaced(result: SendResult, channel: Channel) -> Verdict | None:
    """The verdict where a death notice does not speak of the registration that the app's table holds."""
    if result.target == "live_activity":
        return LIVE_ACTIVITY_ENDED
    if result.target != "fid" and channel == "fcm" and is_fid(result.token):
        return FID_SENT_AS_TOKEN
    return None


def _severity(failure: Failure) -> tuple[int, str]:
    # Of several failed results the prompt's reason is the one most worth a look: ours before theirs.
    order = (UNPROVEN, TRANSIENT, PRESUMED_DEAD, PROVEN_DEAD)
    return order.index(failure.verdict.evidence), failure.verdict.reason
