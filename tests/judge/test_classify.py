"""Answers of FCM and APNs against what they prove (cases/), and what holds for every answer there is."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.judge.cases import CASES, Case
from worker.events import Channel, Event, SendResult, Target
from worker.judge.answers import ApnsAnswer, FcmAnswer, read_apns, read_fcm
from worker.judge.classify import Outcome, StaleToken, classify, fold, is_fid, stale_tokens
from worker.judge.rules import APNS_RULES, FCM_RULES, Evidence, Rule
from worker.judge.spellings import canonical


@pytest.mark.parametrize("case", CASES, ids=[f"{case.file}: {case.why}" for case in CASES])
def test_case(case: Case) -> None:
    verdict = classify(case.channel, case.status, case.body)

    assert (verdict.reason, verdict.evidence, verdict.dead_since) == (
        case.reason,
        case.evidence,
        case.dead_since,
    )


def test_every_case_proves_a_rule_of_its_own() -> None:
    assert [why for why, count in Counter(case.why for case in CASES).items() if count > 1] == []


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 350


# --- what other libraries make of it ----------------------------------------------------------------------

FROM_LIBRARIES = [case for case in CASES if case.library]
#: What libraries call a token that is dead.
DEAD_TO_THEM = {
    "UnregisteredError",
    "UNREGISTERED",
    "Unregistered",
    "registration-token-not-registered",
    "NotFound",
}


def test_sixty_answers_come_from_the_test_data_of_six_libraries() -> None:
    assert len(FROM_LIBRARIES) >= 60
    assert len({case.library for case in FROM_LIBRARIES}) == 6


@pytest.mark.parametrize("case", FROM_LIBRARIES, ids=lambda case: case.why)
def test_where_we_differ_from_a_library_the_case_says_why(case: Case) -> None:
    dead_to_us = classify(case.channel, case.status, case.body).prunes

    assert (case.differs is not None) == (dead_to_us != (case.says in DEAD_TO_THEM))


#: Every code that a library knows: Node 13, .NET 3, Python 7.7, PHP 7, and FCM's legacy API.
NODE = (
    "invalid-argument invalid-recipient invalid-payload invalid-data-payload-key payload-size-limit-exceeded "
    "invalid-options invalid-registration-token registration-token-not-registered "
    "installation-id-not-registered mismatched-credential invalid-package-name device-message-rate-exceeded "
    "topics-message-rate-exceeded topics-subscription-rate-exceeded message-rate-exceeded "
    "third-party-auth-error too-many-topics authentication-error server-unavailable internal-error "
    "unknown-error"
)
RPC = (
    "InvalidArgument FailedPrecondition OutOfRange Unauthenticated PermissionDenied NotFound Conflict "
    "Aborted AlreadyExists ResourceExhausted Cancelled DataLoss Unknown Internal Unavailable DeadlineExceeded"
)
LEGACY = (
    "InvalidParameters MismatchSenderId Unavailable InternalServerError InvalidRegistration NotRegistered "
    "InvalidPackageName MessageTooBig InvalidDataKey InvalidTtl DeviceMessageRateExceeded "
    "TopicsMessageRateExceeded InvalidApnsCredential MissingRegistration"
)
DOTNET = (
    "ThirdPartyAuthError InvalidArgument Internal QuotaExceeded SenderIdMismatch Unavailable Unregistered"
)
PYTHON = "UnregisteredError SenderIdMismatchError QuotaExceededError ThirdPartyAuthError"
PHP = "AuthenticationError InvalidMessage NotFound QuotaExceeded ServerError ServerUnavailable MessagingError"
KNOWN_ELSEWHERE = [
    *(f"messaging/{word}" for word in NODE.split()),
    *f"{NODE} {RPC} {LEGACY} {DOTNET} {PYTHON}".split(),
    *(f"{word}Error" for word in RPC.split()),
    *(f"Kreait\\Firebase\\Exception\\Messaging\\{word}" for word in PHP.split()),
]


@pytest.mark.parametrize("word", dict.fromkeys(KNOWN_ELSEWHERE))
def test_a_cause_that_a_library_names_is_never_no_answer(word: str) -> None:
    bodies: list[Any] = [word, {"code": word}, {"error": {"code": word}}, {"error": {"errorCode": word}}]

    assert "no_answer" not in {classify("fcm", None, body).reason for body in bodies}


@pytest.mark.parametrize("word", dict.fromkeys(KNOWN_ELSEWHERE))
def test_a_librarys_word_proves_no_more_than_fcms_own(word: str) -> None:
    name = canonical(word)
    assert name is not None
    for status in (None, 400, 401, 403, 404, 410, 500):
        assert not classify("fcm", status, word).prunes or classify("fcm", status, name).prunes


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("phrase", [status.phrase for status in HTTPStatus])
def test_a_phrase_of_https_proves_nothing(status: int, phrase: str) -> None:
    said = (phrase, phrase.lower(), phrase.upper(), f"{status} {phrase}", json.dumps(phrase), f" {phrase}.\n")

    assert not any(classify("fcm", status, text).prunes for text in said)


SENTENCE = "the registration token is not registered"


@pytest.mark.parametrize("other", ["project", "sender", "path", "permission", "topic", "api", "7", "'x'"])
@pytest.mark.parametrize("place", range(7))
def test_a_sentence_that_names_anything_but_the_token_is_no_proof(other: str, place: int) -> None:
    words = SENTENCE.split()
    words.insert(place, other)
    body = {"error": {"code": 404, "message": " ".join(words), "status": "NOT_FOUND"}}

    assert not classify("fcm", 404, body).prunes


Answer = TypeVar("Answer", FcmAnswer, ApnsAnswer)


def _unreached(
    rules: tuple[Rule[Answer], ...], read: Callable[[int | None, object], Answer], channel: Channel
) -> list[str]:
    """The rules that are no case's first match; two rules of one name count as two."""
    answers = [read(case.status, case.body) for case in CASES if case.channel == channel]
    reached = {next(i for i, rule in enumerate(rules) if rule.matches(answer)) for answer in answers}
    return [f"{i}: {rule.reason}" for i, rule in enumerate(rules) if i not in reached]


def test_every_rule_for_fcm_has_a_case() -> None:
    assert _unreached(FCM_RULES, read_fcm, "fcm") == []


def test_every_rule_for_apns_has_a_case() -> None:
    assert _unreached(APNS_RULES, read_apns, "apns") == []


@pytest.mark.parametrize("evidence", Evidence)
def test_only_death_prunes(evidence: Evidence) -> None:
    verdict = next(
        classify(case.channel, case.status, case.body) for case in CASES if case.evidence == evidence
    )

    assert verdict.prunes == (evidence in (Evidence.PROVEN_DEAD, Evidence.PRESUMED_DEAD))


# --- whatever the answer --------------------------------------------------------------------------------

quick = settings(max_examples=150, deadline=None, derandomize=True)

KNOWN_REASONS = {
    "fcm": {rule.reason for rule in FCM_RULES},
    "apns": {rule.reason for rule in APNS_RULES},
}
#: What proves a token dead when it stands in the right place.
DEATH = (
    "UNREGISTERED",
    "Unregistered",
    "ExpiredToken",
    "NotRegistered",
    "UnregisteredError",
    "messaging/registration-token-not-registered",
    SENTENCE,
)
WORDS = (
    "",
    "NOT_FOUND",
    "INVALID_ARGUMENT",
    "PERMISSION_DENIED",
    "SENDER_ID_MISMATCH",
    "THIRD_PARTY_AUTH_ERROR",
    "QUOTA_EXCEEDED",
    "UNSPECIFIED_ERROR",
    "BadDeviceToken",
    "InvalidProviderToken",
    "BadPath",
    "Requested entity was not found.",
    "Not Found",
    "messaging/mismatched-credential",
    "messaging/invalid-registration-token",
    "NotFound",
    "SenderIdMismatchError",
    "the registration token of another project is not registered",
    "404: {}",
    "message.token",
    "projects/p/messages/fake_message_id",
    "<html>",
    "null",
    "{",
    '"',
    "\ufeff",
    "type.googleapis.com/google.firebase.fcm.v1.FcmError",
    "type.googleapis.com/google.firebase.fcm.v1.ApnsError",
)
KEYS = (
    "error",
    "errors",
    "details",
    "errorCode",
    "error_code",
    "statusCode",
    "status_code",
    "fieldViolations",
    "violations",
    "field",
    "description",
    "@type",
    "reason",
    "status",
    "code",
    "message",
    "timestamp",
    "name",
    "errorInfo",
    "messagingErrorCode",
    "ErrorCode",
    "apns-id",
)
STATUSES = (0, 200, 302, 400, 401, 403, 404, 405, 410, 413, 429, 500, 502, 503, 504, 599, 999)

any_text = st.text(st.characters(exclude_categories=()), max_size=12)  # lone surrogates and NUL included
numbers = (
    st.integers()
    | st.floats()
    | st.sampled_from([404, 410, 1_795_327_200, 1_795_327_200_000, -1, 2**63, 10**400])
)
statuses = st.none() | st.sampled_from(STATUSES) | st.integers()
channels: st.SearchStrategy[Channel] = st.sampled_from(("fcm", "apns"))


def _bodies(words: tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Bodies made of `words`: any JSON value, envelopes close to the providers', both as text, and junk."""
    word = st.sampled_from(words)
    leaf = st.none() | st.booleans() | numbers | word | any_text
    json_value = st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | any_text, inner, max_size=4)
        ),
        max_leaves=12,
    )
    detail = st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("@type", "errorCode", "reason"), word)
    ).flatmap(lambda found: st.just(found) | numbers.map(lambda number: {**found, "statusCode": number}))
    error = st.fixed_dictionaries(
        {"details": st.lists(detail, max_size=3) | detail | leaf},
        optional={"status": word | numbers, "message": word | any_text, "code": numbers},
    )
    envelope = error.map(lambda value: {"error": value}) | st.fixed_dictionaries(
        {"reason": word}, optional={"timestamp": leaf}
    )
    library = st.fixed_dictionaries(
        {"code": word}, optional={"message": word | any_text, "errorCode": word, "messagingErrorCode": word}
    )
    libraries = (
        library | library.map(lambda one: {"errorInfo": one}) | library.map(lambda one: {"error": one})
    )
    value = json_value | envelope | envelope.map(lambda one: [one]) | libraries
    as_text = value.map(json.dumps) | value.map(lambda one: json.dumps(one, ensure_ascii=False))
    line = st.sampled_from(("404: ", "410 Gone\n", "HTTP/1.1 403 Forbidden ", "status: 500; body: ", "x: "))
    printed = st.tuples(word, word).map(": ".join)
    return (
        value
        | as_text
        | word
        | any_text
        | st.binary(max_size=12)
        | st.tuples(line, as_text).map("".join)
        | printed
    )


bodies = _bodies((*WORDS, *DEATH, *DEATH))
bodies_without_death = _bodies(WORDS)


@quick
@given(channels, statuses, bodies)
def test_no_answer_makes_classification_raise(channel: Channel, status: int | None, body: object) -> None:
    verdict = classify(channel, status, body)

    assert verdict.reason in KNOWN_REASONS[channel]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("404: " + "[" * 100_000, id="brackets without end behind a status line"),
        pytest.param("a." * 50_000, id="a name without end"),
        pytest.param("a: " * 50_000, id="colons without end"),
        pytest.param("HTTP status: " * 20_000 + "{}", id="a status line without end"),
        pytest.param("the registration token " * 20_000, id="a sentence without end"),
        pytest.param({"errorInfo": {"errorInfo": {"code": "UNREGISTERED"}}}, id="wrapped twice"),
        pytest.param({"code": ["UNREGISTERED"], "message": {}}, id="a list for a library's code"),
        pytest.param("[" * 100_000, id="brackets without end"),
        pytest.param('{"error":' * 100_000, id="objects without end"),
        pytest.param('{"error": {"code": ' + "9" * 5_000 + "}}", id="a number of 5,000 digits"),
        pytest.param({"error": {"code": 10**5_000}, "timestamp": 10**5_000}, id="an integer of 5,001 digits"),
        pytest.param({"error": {"code": "9" * 5_000}, "timestamp": "9" * 5_000}, id="5,000 digits as text"),
        pytest.param("\ud800{", id="a lone surrogate"),
        pytest.param(b"\xff\xfe\x00", id="bytes that are no text"),
        pytest.param(bytearray(b'{"name": 1}'), id="a byte array"),
        pytest.param(({"error": {"details": ({},)}},), id="tuples for arrays"),
        pytest.param({1: 2, None: 3, ("error",): 4}, id="keys that are no text"),
        pytest.param({"error": {"status": {"a": 1}, "details": [{"@type": [], "reason": {}}]}}, id="objects"),
        pytest.param({"error": {"details": [{"errorCode": ["UNREGISTERED"]}]}}, id="a list for a code"),
        pytest.param({"SENDER_ID_MISMATCH"}, id="a set"),
        pytest.param(datetime(2026, 11, 22, tzinfo=UTC), id="a datetime"),
    ],
)
@pytest.mark.parametrize("channel", ["fcm", "apns"])
def test_what_no_provider_sends_keeps_the_token(channel: Channel, body: object) -> None:
    assert not classify(channel, 404, body).prunes


@quick
@given(channels, st.sampled_from([400, 401, 403, 413, 429, *range(500, 600)]), bodies_without_death)
def test_a_status_that_blames_no_token_keeps_it_unless_the_body_proves_death(
    channel: Channel, status: int, body: object
) -> None:
    assert not classify(channel, status, body).prunes


@quick
@given(channels, st.sampled_from([401, 403]), bodies)
def test_a_status_that_blames_our_credentials_keeps_the_token_whatever_the_body(
    channel: Channel, status: int, body: object
) -> None:
    assert not classify(channel, status, body).prunes


@quick
@given(bodies)
def test_a_404_of_apns_keeps_the_token_whatever_the_body(body: object) -> None:
    assert not classify("apns", 404, body).prunes


@quick
@given(st.sampled_from(STATUSES) | st.integers(), bodies)
def test_apns_proves_death_by_410_alone(status: int, body: object) -> None:
    assert status == 410 or not classify("apns", status, body).prunes


@quick
@given(channels, bodies)
def test_a_200_keeps_the_token_whatever_the_body(channel: Channel, body: object) -> None:
    assert not classify(channel, 200, body).prunes


@quick
@given(channels, (st.none() | st.sampled_from(STATUSES) | st.integers()).filter(lambda s: s != 200), bodies)
def test_nothing_but_a_200_is_accepted(channel: Channel, status: int | None, body: object) -> None:
    verdict = classify(channel, status, body)

    assert verdict.evidence is not Evidence.ACCEPTED or (channel, status) == ("fcm", 201)


DETAILS: tuple[object, ...] = (
    {"errorCode": "UNREGISTERED"},
    {"errorCode": "SENDER_ID_MISMATCH"},
    {"errorCode": "UNSPECIFIED_ERROR"},
    {"errorCode": 3},
    {"statusCode": 410, "reason": "Unregistered"},
    {"statusCode": 410, "reason": "ExpiredToken"},
    {"statusCode": 400, "reason": "BadDeviceToken"},
    {"statusCode": 403, "reason": "InvalidProviderToken"},
    {"statusCode": 403},
    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"},
    "no such project",
    None,
)


@quick
@given(st.sampled_from([None, 400, 401, 404, 410]), st.lists(st.sampled_from(DETAILS), max_size=3), st.data())
def test_the_order_of_details_does_not_matter(
    status: int | None, details: list[object], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(details))

    assert classify("fcm", status, {"error": {"details": shuffled}}).evidence == (
        classify("fcm", status, {"error": {"details": details}}).evidence
    )


@quick
@given(st.sampled_from([400, 404, 410]), st.sampled_from(DETAILS))
def test_a_detail_that_blames_apns_credentials_keeps_the_token(status: int, detail: object) -> None:
    blame = {"statusCode": 403, "reason": "InvalidProviderToken"}

    assert not classify("fcm", status, {"error": {"details": [detail, blame]}}).prunes


# --- folding an event's answers into one outcome --------------------------------------------------------

SENT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
LATER = SENT + timedelta(minutes=5)


def _event(
    *results: SendResult, channel: Channel = "fcm", skipped: str | None = None, final: bool = True
) -> Event:
    return Event(
        peer_mentor_id=UUID(int=1),
        chapter_id=UUID(int=2),
        scenario_rule_id=UUID(int=3),
        delivery_channel=channel,
        attempted_at=SENT,
        idempotency_key="key",
        results=list(results),
        skipped=skipped,
        final=final,
    )


def _unregistered_at(moment: datetime) -> dict[str, object]:
    return {"reason": "Unregistered", "timestamp": int(moment.timestamp() * 1000)}


def _accepted(token: str, at: datetime | None = None, channel: Channel | None = None) -> SendResult:
    return SendResult(token=token, http_status=200, sent_at=at, delivery_channel=channel)


def _dead(token: str, at: datetime | None = None) -> SendResult:
    return SendResult(token=token, http_status=404, body="UNREGISTERED", sent_at=at)


def _no_answer(token: str) -> SendResult:
    return SendResult(token=token, http_status=None)


def _forbidden(token: str) -> SendResult:
    return SendResult(token=token, http_status=403)


@pytest.mark.parametrize(
    ("results", "status", "reason"),
    [
        pytest.param([_accepted("a")], "delivered", None, id="accepted"),
        pytest.param([_dead("a"), _accepted("b")], "delivered", None, id="one of two accepted"),
        pytest.param([_dead("a")], "failed", "unregistered", id="dead"),
        pytest.param([_no_answer("a")], "failed", "no_answer", id="no answer"),
        pytest.param([_forbidden("a")], "failed", "permission_denied", id="refused"),
        pytest.param(
            [_dead("a"), _no_answer("b"), _forbidden("c")],
            "failed",
            "permission_denied",
            id="of several reasons the one that is ours to mend comes first",
        ),
        pytest.param([_dead("a"), _no_answer("b")], "failed", "no_answer", id="then the one worth a new try"),
        pytest.param(
            [SendResult(token="a", http_status=200, body={"name": "projects/p/messages/fake_message_id"})],
            "failed",
            "dry_run",
            id="a dry run was delivered to nobody",
        ),
        pytest.param([], "skipped", "no_results", id="nothing was sent"),
    ],
)
def test_what_became_of_the_prompt(results: list[SendResult], status: str, reason: str | None) -> None:
    outcome = fold(_event(*results))

    assert (outcome.status, outcome.reason) == (status, reason)


def test_a_skipped_prompt_keeps_its_reason() -> None:
    outcome = fold(_event(skipped="quiet_hours"))

    assert (outcome.status, outcome.reason) == ("skipped", "quiet_hours")


def test_results_left_out_are_as_good_as_none() -> None:
    assert fold(Event(**{**_fields(_event()), "results": None})).status == "skipped"


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


@pytest.mark.parametrize(
    ("results", "channel"),
    [
        pytest.param([], "fcm", id="nothing sent: the event's"),
        pytest.param(
            [SendResult(token="a", http_status=410, delivery_channel="apns")], "fcm", id="none accepted"
        ),
        pytest.param([_accepted("a", channel="apns")], "apns", id="the accepted result's own"),
        pytest.param([_accepted("a")], "fcm", id="the accepted result's, which is the event's"),
        pytest.param(
            [_dead("a"), _accepted("b", channel="apns"), _accepted("c")], "apns", id="the first of two"
        ),
    ],
)
def test_the_outcome_names_the_channel_of_the_first_accepted_result(
    results: list[SendResult], channel: Channel
) -> None:
    assert fold(_event(*results)).delivery_channel == channel


@pytest.mark.parametrize("final", [True, False])
def test_the_outcome_says_whether_the_sender_will_try_again(final: bool) -> None:
    assert fold(_event(_dead("a"), final=final)).final is final


def test_the_outcome_carries_the_row() -> None:
    outcome = fold(_event(_accepted("a", at=LATER)))

    assert (
        outcome.peer_mentor_id,
        outcome.chapter_id,
        outcome.scenario_rule_id,
        outcome.delivered_at,
        outcome.idempotency_key,
    ) == (UUID(int=1), UUID(int=2), UUID(int=3), SENT, "key")


def test_every_result_that_was_not_accepted_is_a_failure() -> None:
    outcome = fold(_event(_dead("a"), _accepted("b"), _no_answer("c"), _forbidden("d")))

    assert [(failure.token, failure.http_status) for failure in outcome.failures] == [
        ("a", 404),
        ("c", None),
        ("d", 403),
    ]


def test_a_dead_token_is_stale_if_registered_before_the_event() -> None:
    assert fold(_event(_dead("a"))).stale == (StaleToken("a", SENT, "unregistered", "fcm"),)


def test_a_dead_token_is_stale_if_registered_before_its_own_send() -> None:
    assert fold(_event(_dead("a", at=LATER))).stale == (StaleToken("a", LATER, "unregistered", "fcm"),)


@pytest.mark.parametrize(
    ("dead_since", "before"),
    [
        pytest.param(SENT - timedelta(days=2), SENT - timedelta(days=2), id="earlier than the send"),
        pytest.param(SENT + timedelta(days=2), SENT, id="later than the send"),
    ],
)
def test_apns_time_of_death_and_the_send_bound_the_registration_together(
    dead_since: datetime, before: datetime
) -> None:
    answer = SendResult(token="a", http_status=410, body=_unregistered_at(dead_since))

    assert fold(_event(answer, channel="apns")).stale == (StaleToken("a", before, "unregistered", "apns"),)


@pytest.mark.parametrize(
    ("results", "stale"),
    [
        pytest.param([_dead("a"), _accepted("a", at=LATER)], [], id="accepted after its death: alive"),
        pytest.param([_accepted("a"), _dead("a", at=LATER)], ["a"], id="accepted before its death: dead"),
        pytest.param([_accepted("a"), _dead("a")], [], id="accepted in the same moment: in doubt, alive"),
        pytest.param([_dead("a"), _accepted("b")], ["a"], id="another token's acceptance does not save it"),
        pytest.param(
            [_accepted("a"), _dead("a", at=LATER), _accepted("a", at=LATER + timedelta(seconds=1))],
            [],
            id="the last word counts",
        ),
        pytest.param(
            [_accepted("a", at=LATER + timedelta(seconds=1)), _dead("a", at=LATER), _accepted("a")],
            [],
            id="the last word counts, wherever in the list it stands",
        ),
        pytest.param(
            [_dead("a"), _accepted("a", at=LATER), _dead("a", at=LATER + timedelta(seconds=1))],
            ["a"],
            id="dead, alive, and dead again",
        ),
        pytest.param([_no_answer("a"), _forbidden("b")], [], id="no proof"),
    ],
)
def test_which_tokens_are_stale(results: list[SendResult], stale: list[str]) -> None:
    assert [found.token for found in stale_tokens([fold(_event(*results))])] == stale


def test_a_token_accepted_after_apns_time_of_death_is_alive_though_the_notice_came_later() -> None:
    notice = SendResult(
        token="a", http_status=410, body=_unregistered_at(SENT - timedelta(days=1)), sent_at=LATER
    )

    assert stale_tokens([fold(_event(_accepted("a"), notice, channel="apns"))]) == []


def test_a_sign_of_life_in_one_event_refutes_the_death_notice_of_another() -> None:
    outcomes = [fold(_event(_dead("a"))), fold(_event(_accepted("a", at=LATER)))]

    assert (stale_tokens(outcomes), stale_tokens(outcomes[::-1])) == ([], [])


# --- what the push was sent to ----------------------------------------------------------------------------

FID = "cGVlciBtZW50b3IgMTIzNA"
LIVE_ACTIVITY_OVER = {"error": {"details": [{"statusCode": 410, "reason": "ExpiredToken"}]}}


def _told_dead(token: str, target: Target, body: object = "UNREGISTERED", **changes: Any) -> SendResult:
    return SendResult(token=token, http_status=404, body=body, target=target, **changes)


@pytest.mark.parametrize(
    ("token", "fid"),
    [
        (FID, True),
        ("f" * 22, True),
        ("c_-" + "A9" * 9 + "x", True),
        ("a" + "c" * 21, False),  # a FID begins with c, d, e or f
        ("c" * 21, False),
        ("c" * 23, False),
        (f"{FID}:APA91b" + "x" * 128, False),  # a registration token, made of one
        (f"{FID}\n", False),
        ("c" * 21 + "é", False),
        ("c" * 21 + "+", False),
        ("0123456789abcdef" * 4, False),
        ("", False),
    ],
)
def test_a_fid_shows_in_its_form(token: str, fid: bool) -> None:
    assert is_fid(token) is fid


@pytest.mark.parametrize(
    ("result", "reason", "stale"),
    [
        pytest.param(_told_dead("token", "token"), "unregistered", True, id="a token is pruned"),
        pytest.param(_told_dead(FID, "fid"), "unregistered", True, id="a FID is pruned like a token"),
        pytest.param(
            _told_dead(FID, "fid", None), "not_found", True, id="a FID is presumed dead like a token"
        ),
        pytest.param(
            _told_dead(FID, "token"), "fid_sent_as_token", False, id="a FID sent as a token is kept"
        ),
        pytest.param(
            _told_dead(FID, "token", None), "fid_sent_as_token", False, id="whatever it is called dead for"
        ),
        pytest.param(
            _told_dead(FID, "token", "SENDER_ID_MISMATCH"),
            "sender_id_mismatch",
            False,
            id="a FID sent as a token keeps another reason",
        ),
        pytest.param(
            _told_dead("token", "live_activity", LIVE_ACTIVITY_OVER),
            "live_activity_ended",
            False,
            id="a Live Activity that is over costs no registration",
        ),
        pytest.param(
            _told_dead("token", "live_activity"),
            "live_activity_ended",
            False,
            id="whoever says so",
        ),
        pytest.param(
            _told_dead("token", "live_activity", "QUOTA_EXCEEDED"),
            "quota_exceeded",
            False,
            id="a Live Activity keeps another reason",
        ),
        pytest.param(
            SendResult(
                token="token",
                http_status=410,
                body={"reason": "ExpiredToken"},
                delivery_channel="apns",
                target="live_activity",
            ),
            "live_activity_ended",
            False,
            id="a Live Activity at APNs itself",
        ),
        pytest.param(
            SendResult(token=FID, http_status=410, body={"reason": "Unregistered"}, delivery_channel="apns"),
            "unregistered",
            True,
            id="APNs knows no FIDs",
        ),
    ],
)
def test_whose_death_a_notice_speaks_of(result: SendResult, reason: str, stale: bool) -> None:
    outcome = fold(_event(result))

    (failure,) = outcome.failures
    assert (failure.verdict.reason, [notice.token for notice in outcome.stale]) == (
        reason,
        [result.token] if stale else [],
    )


def test_an_accepted_live_activity_is_a_sign_of_life() -> None:
    accepted = SendResult(token="a", http_status=200, sent_at=LATER, target="live_activity")

    assert stale_tokens([fold(_event(_dead("a"), accepted))]) == []


#: Events whose results say everything about few tokens, at few moments, so that they meet each other.
events = st.builds(
    lambda results, final: _event(*results, final=final),
    st.lists(
        st.builds(
            lambda token, case, minutes, target: SendResult(
                token=token,
                http_status=case.status,
                body=case.body,
                sent_at=SENT + timedelta(minutes=minutes),
                delivery_channel=case.channel,
                target=target,
            ),
            st.sampled_from(("a", "b", "c", FID)),
            st.sampled_from(CASES),
            st.integers(-1, 1),
            st.sampled_from(("token", "fid", "live_activity")),
        ),
        max_size=6,
    ),
    st.booleans(),
)


def _whatever_the_order(outcome: Outcome) -> tuple[object, ...]:
    return (
        outcome.status,
        outcome.reason,
        outcome.final,
        set(stale_tokens([outcome])),
        Counter(outcome.failures),
    )


@quick
@given(events, st.data())
def test_the_order_of_results_does_not_matter(event: Event, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(event.results or []))

    assert _whatever_the_order(fold(_event(*shuffled, final=event.final))) == _whatever_the_order(fold(event))


@quick
@given(events, st.integers(0, 6))
def test_one_accepted_result_makes_the_prompt_delivered(event: Event, place: int) -> None:
    results = list(event.results or [])
    results.insert(place, _accepted("a"))

    assert fold(_event(*results)).status == "delivered"


@quick
@given(events)
def test_a_token_is_stale_only_before_a_send_that_found_it_dead(event: Event) -> None:
    dead_at = {
        (result.token, result.sent_at)
        for result in event.results or []
        if classify(result.delivery_channel or "fcm", result.http_status, result.body).prunes
    }

    for stale in stale_tokens([fold(event)]):
        assert any(token == stale.token and at and stale.before <= at for token, at in dead_at)


@quick
@given(events)
def test_a_token_accepted_last_is_not_stale(event: Event) -> None:
    last = SendResult(token="a", http_status=200, sent_at=SENT + timedelta(hours=1))

    assert "a" not in {stale.token for stale in stale_tokens([fold(_event(*(event.results or []), last))])}


@quick
@given(events)
def test_what_was_sent_to_a_live_activity_prunes_nothing(event: Event) -> None:
    results = [structs.replace(result, target="live_activity") for result in event.results or []]

    assert fold(_event(*results)).stale == ()


@quick
@given(events)
def test_a_fid_is_pruned_only_where_it_was_asked_about_as_one(event: Event) -> None:
    results = [structs.replace(result, target="token") for result in event.results or []]

    assert FID not in {notice.token for notice in fold(_event(*results)).stale if notice.channel == "fcm"}
