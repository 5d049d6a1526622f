"""What holds for every answer there is, whatever its shape."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.judge import quick
from tests.judge.test_spellings import SENTENCE
from worker.events import Channel
from worker.judge.classify import classify
from worker.judge.rules import APNS_RULES, FCM_RULES, Evidence

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


def _within_itself() -> dict[str, Any]:
    body: dict[str, Any] = {"code": 404}
    body["details"] = body
    return body


def _doubled(times: int) -> list[Any]:
    """A list that a pickle holds in a line, and a text of it in all of memory."""
    parts: list[Any] = ["UNREGISTERED"]
    for _ in range(times):
        parts = [parts, parts]
    return parts


def _nested(times: int) -> frozenset[Any]:
    parts: frozenset[Any] = frozenset()
    for _ in range(times):
        parts = frozenset((parts,))
    return parts


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
        pytest.param({"error": _within_itself()}, id="an object within itself"),
        pytest.param({"error": _doubled(60)}, id="lists that share their parts, 60 deep"),
        pytest.param({"error": _nested(1_000)}, id="frozen sets without end"),
        pytest.param({"error": memoryview(b"UNREGISTERED")}, id="a view of bytes"),
        pytest.param({"error": {"message": "x" * 5_000_000}}, id="a message without end"),
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
