"""The wire contract, version 1: what an event may say, and what is said of one that may not."""

import copy
import traceback
import unicodedata
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.events import Event, InvalidEvent, Rejected, SendResult, decode, decode_all, idempotency_key

PEER_MENTOR = "0a8f4c1e-5b7d-4e2a-9c3f-1d2e3f4a5b6c"
CHAPTER = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
RULE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
#: printf %s "$PEER_MENTOR:$RULE:2026-W47" | sha256sum
KEY_OF_WEEK_47 = "8018ed1f8436d7e3e834fd0dd8339d03b2544a2f8b2535e61275c6abc968ac5c"

#: In a payload: a field that is not there at all.
ABSENT = object()


def _payload(**fields: object) -> dict[str, Any]:
    """A valid event with some fields replaced, added, or (ABSENT) taken out."""
    payload: dict[str, Any] = {
        "peer_mentor_id": PEER_MENTOR,
        "chapter_id": CHAPTER,
        "scenario_rule_id": RULE,
        "idempotency_key": "week-47",
        "delivery_channel": "fcm",
        "attempted_at": "2026-11-22T06:00:00Z",
        **fields,
    }
    return {name: value for name, value in payload.items() if value is not ABSENT}


def _with_result(**fields: object) -> dict[str, Any]:
    """A valid event whose second result has some fields replaced, added, or (ABSENT) taken out."""
    result = {"token": "t2", "http_status": 404, "body": None, **fields}
    result = {name: value for name, value in result.items() if value is not ABSENT}
    return _payload(results=[{"token": "t1", "http_status": 200}, result])


def _with_key(key: object) -> dict[Any, Any]:
    """A valid event with one more key, which need not be text."""
    return {**_payload(), key: 1}


def _refusal(payload: object) -> tuple[str, str]:
    with pytest.raises(InvalidEvent) as caught:
        decode(payload)
    assert str(caught.value) == f"{caught.value.path}: {caught.value.problem}"
    return caught.value.path, caught.value.problem


# --- what is accepted -----------------------------------------------------------------------------------


def test_an_event_with_every_field() -> None:
    event = decode(
        _payload(
            version=1,
            final=False,
            results=[
                {
                    "token": "t1",
                    "http_status": 410,
                    "body": {"reason": "Unregistered"},
                    "sent_at": "2026-11-22T05:59:58.5Z",
                    "delivery_channel": "apns",
                    "target": "live_activity",
                }
            ],
        )
    )

    assert event == Event(
        version=1,
        peer_mentor_id=UUID(PEER_MENTOR),
        chapter_id=UUID(CHAPTER),
        scenario_rule_id=UUID(RULE),
        idempotency_key="week-47",
        delivery_channel="fcm",
        attempted_at=datetime(2026, 11, 22, 6, tzinfo=UTC),
        final=False,
        results=[
            SendResult(
                token="t1",
                http_status=410,
                body={"reason": "Unregistered"},
                sent_at=datetime(2026, 11, 22, 5, 59, 58, 500_000, tzinfo=UTC),
                delivery_channel="apns",
                target="live_activity",
            )
        ],
    )


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(_payload(), id="the least there may be"),
        pytest.param(_payload(version=1), id="version 1"),
        pytest.param(_payload(results=[]), id="nothing was sent"),
        pytest.param(_payload(skipped="quiet_hours"), id="skipped"),
        pytest.param(
            _payload(skipped="quiet_hours", results=[]), id="skipped, with an empty list of results"
        ),
        pytest.param(
            _payload(skipped=None, results=None, date_window=None), id="optional fields that are null"
        ),
        pytest.param(_payload(idempotency_key=None, date_window="2026-W47"), id="a null key beside a window"),
        pytest.param(_with_result(http_status=None), id="no answer"),
        pytest.param(
            _with_result(sent_at=None, delivery_channel=None, body=None, target=None),
            id="a result's null fields",
        ),
        pytest.param(_with_result(target="token"), id="a result of a token"),
        pytest.param(_with_result(target="fid"), id="a result of an installation id"),
        pytest.param(_with_result(target="live_activity"), id="a result of a Live Activity"),
        pytest.param(_with_result(body=ABSENT), id="a result without a body"),
        pytest.param(_with_result(token="t" * 4096), id="the longest token"),
        pytest.param(_payload(idempotency_key="k" * 255), id="the longest key"),
        pytest.param(_payload(idempotency_key="漢" * 255), id="the longest key, counted in characters"),
        pytest.param(_payload(idempotency_key="\U0001f514"), id="a key beyond the basic plane"),
        pytest.param(_payload(attempted_at="2000-01-01T00:00:00Z"), id="the first year"),
        pytest.param(_payload(attempted_at="2100-12-31T23:59:59Z"), id="the last year"),
    ],
)
def test_a_valid_event_decodes(payload: dict[str, Any]) -> None:
    assert decode(payload).peer_mentor_id == UUID(PEER_MENTOR)


@pytest.mark.parametrize(
    "body",
    [
        None,
        True,
        0,
        1.5,
        "",
        "raw \0 \ud800 text",
        [],
        [None],
        {},
        {"error": {"details": []}},
        {"a": {"\0": 1}},
    ],
    ids=ascii,
)
def test_a_provider_s_answer_is_taken_as_it_came(body: object) -> None:
    results = decode(_with_result(body=copy.deepcopy(body))).results

    assert results is not None
    assert results[1].body == body


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-22T06:00:00Z", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T06:00:00+00:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T01:00:00-05:00", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T11:45:00+05:45", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22t06:00:00z", datetime(2026, 11, 22, 6, tzinfo=UTC)),
        ("2026-11-22T06:00:00.250Z", datetime(2026, 11, 22, 6, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_a_time_is_a_moment_whatever_its_offset(written: str, moment: datetime) -> None:
    assert decode(_payload(attempted_at=written)).attempted_at == moment


# --- the key --------------------------------------------------------------------------------------------


def test_a_given_key_is_the_key() -> None:
    assert decode(_payload(idempotency_key="week-47")).key == "week-47"


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(str, id="canonical"),
        pytest.param(str.upper, id="upper case"),
        pytest.param(lambda written: written.replace("-", ""), id="without dashes"),
        pytest.param(lambda written: written.replace("-", "").upper(), id="upper case without dashes"),
        pytest.param(UUID, id="an object, where the serializer knows it"),
    ],
)
def test_the_key_of_a_window_does_not_depend_on_the_spelling_of_ids(spell: Any) -> None:
    payload = _payload(
        peer_mentor_id=spell(PEER_MENTOR),
        scenario_rule_id=spell(RULE),
        idempotency_key=ABSENT,
        date_window="2026-W47",
    )

    assert decode(payload).key == KEY_OF_WEEK_47


def test_the_scheduler_makes_the_same_key() -> None:
    assert idempotency_key(UUID(PEER_MENTOR), UUID(RULE), "2026-W47") == KEY_OF_WEEK_47


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"date_window": "2026-W48"}, id="another week"),
        pytest.param({"peer_mentor_id": CHAPTER}, id="another peer mentor"),
        pytest.param({"scenario_rule_id": CHAPTER}, id="another rule"),
        pytest.param({"peer_mentor_id": RULE, "scenario_rule_id": PEER_MENTOR}, id="ids the other way round"),
    ],
)
def test_another_prompt_has_another_key(other: dict[str, str]) -> None:
    payload = _payload(**{"idempotency_key": ABSENT, "date_window": "2026-W47", **other})

    assert decode(payload).key != KEY_OF_WEEK_47


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"chapter_id": RULE}, id="chapter"),
        pytest.param({"delivery_channel": "apns"}, id="channel"),
        pytest.param({"attempted_at": "2026-11-22T07:00:00Z"}, id="time of the attempt"),
    ],
)
def test_a_new_try_of_the_same_prompt_has_the_same_key(other: dict[str, str]) -> None:
    payload = _payload(**{"idempotency_key": ABSENT, "date_window": "2026-W47", **other})

    assert decode(payload).key == KEY_OF_WEEK_47


@pytest.mark.parametrize("field", ["idempotency_key", "date_window"])
def test_composed_and_decomposed_letters_stay_different_keys(field: str) -> None:
    composed, decomposed = (
        decode(_payload(**{"idempotency_key": ABSENT, field: unicodedata.normalize(form, "Büro-47")}))
        for form in ("NFC", "NFD")
    )

    assert composed.key != decomposed.key


# --- what is refused, where, and in which words ---------------------------------------------------------

LONE_SURROGATE = "contains a lone surrogate, so it is not valid Unicode"
NUL = "contains a NUL character"
ONE_OF_TWO = "exactly one of idempotency_key and date_window is needed"
A_TIME = "expected an RFC 3339 time with an offset"
ZONED = "expected `datetime` with a timezone component"
YEARS = "year must be within 2000..2100"


@pytest.mark.parametrize(
    ("payload", "path", "problem"),
    [
        # No object at all.
        pytest.param(None, "$", "expected `object`, got `null`", id="null"),
        pytest.param("{}", "$", "expected `object`, got `str`", id="JSON as text"),
        pytest.param(b"{}", "$", "expected `object`, got `bytes`", id="bytes"),
        pytest.param(47, "$", "expected `object`, got `int`", id="a number"),
        pytest.param([_payload()], "$", "expected `object`, got `array`", id="a list"),
        pytest.param({}, "$", "object missing required field `peer_mentor_id`", id="an empty object"),
        pytest.param(
            _payload(chapter_id=ABSENT),
            "$",
            "object missing required field `chapter_id`",
            id="a missing field",
        ),
        # Fields that are not in the contract.
        pytest.param(_payload(tokens=[]), "$", "unknown field `tokens`", id="an unknown field"),
        pytest.param(
            _payload(**{"t" * 33: 1}), "$", "unknown field", id="an unknown field too long to be shown"
        ),
        pytest.param(_payload(**{"t-1": 1}), "$", "unknown field", id="an unknown field that is no name"),
        pytest.param(_payload(**{"": 1}), "$", "unknown field", id="a field without a name"),
        pytest.param(_with_key(1), "$", "field names must be strings", id="a number for a field name"),
        pytest.param(_with_key(None), "$", "field names must be strings", id="null for a field name"),
        pytest.param(_with_result(status=200), "$.results[1]", "unknown field `status`", id="in a result"),
        pytest.param(
            _payload(results=[{"token": "t", "http_status": 200, 1: 2}]),
            "$.results[0]",
            "field names must be strings",
            id="a number for a field name in a result",
        ),
        # Version.
        pytest.param(_payload(version=2), "$.version", "expected 1", id="a version not yet known"),
        pytest.param(_payload(version=0), "$.version", "expected 1", id="version 0"),
        pytest.param(_payload(version="1"), "$.version", "expected `int`, got `str`", id="version as text"),
        pytest.param(_payload(version=True), "$.version", "expected `int`, got `bool`", id="version as true"),
        # Ids: what Python would take and PostgreSQL would not, or the other way round.
        pytest.param(
            _payload(peer_mentor_id=f"urn:uuid:{PEER_MENTOR}"),
            "$.peer_mentor_id",
            "expected a UUID",
            id="urn",
        ),
        pytest.param(
            _payload(chapter_id="{" + CHAPTER + "}"), "$.chapter_id", "expected a UUID", id="braces"
        ),
        pytest.param(
            _payload(scenario_rule_id="\u0667c9e6679" + RULE[8:]),
            "$.scenario_rule_id",
            "expected a UUID",
            id="digits that are not ASCII",
        ),
        pytest.param(
            _payload(chapter_id="1b9d-6bcdbbfd-4b2d-9b5d-ab8dfbbd4bed"),
            "$.chapter_id",
            "expected a UUID",
            id="dashes in odd places",
        ),
        pytest.param(
            _payload(chapter_id=CHAPTER + " "), "$.chapter_id", "expected a UUID", id="a trailing blank"
        ),
        pytest.param(_payload(chapter_id=""), "$.chapter_id", "expected a UUID", id="an empty id"),
        pytest.param(_payload(chapter_id=None), "$.chapter_id", "expected `uuid`, got `null`", id="no id"),
        pytest.param(
            _payload(chapter_id=47), "$.chapter_id", "expected `uuid`, got `int`", id="a number for an id"
        ),
        # The key and the window.
        pytest.param(_payload(date_window="2026-W47"), "$", ONE_OF_TWO, id="both key and window"),
        pytest.param(_payload(idempotency_key=ABSENT), "$", ONE_OF_TWO, id="neither key nor window"),
        pytest.param(_payload(idempotency_key=None), "$", ONE_OF_TWO, id="a null key and no window"),
        pytest.param(
            _payload(idempotency_key=""),
            "$.idempotency_key",
            "expected `str` of length >= 1",
            id="an empty key",
        ),
        pytest.param(
            _payload(idempotency_key="k" * 256),
            "$.idempotency_key",
            "expected `str` of length <= 255",
            id="a key of 256 characters",
        ),
        pytest.param(
            _payload(idempotency_key="漢" * 4000),
            "$.idempotency_key",
            "expected `str` of length <= 255",
            id="a key of 4,000 characters that no index row could hold",
        ),
        pytest.param(_payload(idempotency_key="week\x0047"), "$.idempotency_key", NUL, id="NUL in the key"),
        pytest.param(
            _payload(idempotency_key="\ud83d"),
            "$.idempotency_key",
            LONE_SURROGATE,
            id="a lone surrogate in the key",
        ),
        pytest.param(
            _payload(idempotency_key=b"week-47"),
            "$.idempotency_key",
            "expected `str | null`, got `bytes`",
            id="bytes for the key",
        ),
        pytest.param(
            _payload(idempotency_key=ABSENT, date_window="\0"), "$.date_window", NUL, id="NUL in the window"
        ),
        pytest.param(
            _payload(idempotency_key=ABSENT, date_window="\udc00"),
            "$.date_window",
            LONE_SURROGATE,
            id="a lone surrogate in the window",
        ),
        pytest.param(
            _payload(idempotency_key=ABSENT, date_window=47),
            "$.date_window",
            "expected `str | null`, got `int`",
            id="a number for the window",
        ),
        # The channel.
        pytest.param(
            _payload(delivery_channel="sms"),
            "$.delivery_channel",
            "expected 'fcm' or 'apns'",
            id="another channel",
        ),
        pytest.param(
            _payload(delivery_channel="FCM"),
            "$.delivery_channel",
            "expected 'fcm' or 'apns'",
            id="upper case channel",
        ),
        pytest.param(
            _payload(delivery_channel=None),
            "$.delivery_channel",
            "expected `str`, got `null`",
            id="no channel",
        ),
        pytest.param(
            _with_result(delivery_channel="sms"),
            "$.results[1].delivery_channel",
            "expected 'fcm' or 'apns'",
            id="another channel in a result",
        ),
        pytest.param(
            _with_result(target="topic"),
            "$.results[1].target",
            "expected 'token', 'fid' or 'live_activity'",
            id="another target",
        ),
        pytest.param(
            _with_result(target=7),
            "$.results[1].target",
            "expected `str | null`, got `int`",
            id="a number for it",
        ),
        # Times.
        pytest.param(
            _payload(attempted_at="2026-11-22T06:00:00"), "$.attempted_at", ZONED, id="a time with no offset"
        ),
        pytest.param(
            _payload(attempted_at=datetime.fromisoformat("2026-11-22")),
            "$.attempted_at",
            ZONED,
            id="a naive datetime",
        ),
        pytest.param(
            _payload(attempted_at="9999-12-31T23:59:59-14:00"),
            "$.attempted_at",
            YEARS,
            id="a year nobody reads back",
        ),
        pytest.param(
            _payload(attempted_at="1999-12-31T23:59:59Z"), "$.attempted_at", YEARS, id="before 2000"
        ),
        pytest.param(_payload(attempted_at="2101-01-01T00:00:00Z"), "$.attempted_at", YEARS, id="after 2100"),
        pytest.param(_payload(attempted_at="0000-01-01T00:00:00Z"), "$.attempted_at", A_TIME, id="year 0"),
        pytest.param(
            _payload(attempted_at="294277-01-01T00:00:00Z"), "$.attempted_at", A_TIME, id="year 294277"
        ),
        pytest.param(_payload(attempted_at="infinity"), "$.attempted_at", A_TIME, id="infinity"),
        pytest.param(_payload(attempted_at="now"), "$.attempted_at", A_TIME, id="now"),
        pytest.param(_payload(attempted_at="2026-11-22"), "$.attempted_at", A_TIME, id="a date"),
        pytest.param(
            _payload(attempted_at="2026-02-30T06:00:00Z"), "$.attempted_at", A_TIME, id="30 February"
        ),
        pytest.param(
            _payload(attempted_at="2026-11-22T06:00:60Z"), "$.attempted_at", A_TIME, id="a leap second"
        ),
        pytest.param(
            _payload(attempted_at="\u0662026-11-22T06:00:00Z"),
            "$.attempted_at",
            A_TIME,
            id="a time's non-ASCII digits",
        ),
        pytest.param(
            _payload(attempted_at=float("nan")),
            "$.attempted_at",
            "expected `datetime`, got `float`",
            id="NaN",
        ),
        pytest.param(
            _payload(attempted_at=1_795_327_200),
            "$.attempted_at",
            "expected `datetime`, got `int`",
            id="epoch seconds",
        ),
        pytest.param(
            _with_result(sent_at="2026-11-22T06:00:00"),
            "$.results[1].sent_at",
            ZONED,
            id="sent_at with no offset",
        ),
        pytest.param(
            _with_result(sent_at="2101-01-01T00:00:00Z"), "$.results[1].sent_at", YEARS, id="sent_at's year"
        ),
        pytest.param(_with_result(sent_at="infinity"), "$.results[1].sent_at", A_TIME, id="sent_at infinity"),
        # Results.
        pytest.param(
            _payload(results={"t1": 200}),
            "$.results",
            "expected `array | null`, got `object`",
            id="results by token",
        ),
        pytest.param(
            _payload(results="t1"), "$.results", "expected `array | null`, got `str`", id="text for results"
        ),
        pytest.param(
            _payload(results=[None]), "$.results[0]", "expected `object`, got `null`", id="a null result"
        ),
        pytest.param(
            _payload(results=["t1"]), "$.results[0]", "expected `object`, got `str`", id="a bare token"
        ),
        pytest.param(
            _with_result(http_status=ABSENT),
            "$.results[1]",
            "object missing required field `http_status`",
            id="a result without a status",
        ),
        pytest.param(
            _with_result(http_status=True),
            "$.results[1].http_status",
            "expected `int | null`, got `bool`",
            id="true for a status",
        ),
        pytest.param(
            _with_result(http_status="404"),
            "$.results[1].http_status",
            "expected `int | null`, got `str`",
            id="text for a status",
        ),
        pytest.param(
            _with_result(http_status=404.0),
            "$.results[1].http_status",
            "expected `int | null`, got `float`",
            id="a float for a status",
        ),
        pytest.param(
            _with_result(http_status=[404]),
            "$.results[1].http_status",
            "expected `int | null`, got `array`",
            id="a list for a status",
        ),
        pytest.param(
            _with_result(token=""), "$.results[1].token", "expected `str` of length >= 1", id="an empty token"
        ),
        pytest.param(
            _with_result(token="t" * 4097),
            "$.results[1].token",
            "expected `str` of length <= 4096",
            id="a token of 4,097 characters",
        ),
        pytest.param(
            _with_result(token=None), "$.results[1].token", "expected `str`, got `null`", id="a null token"
        ),
        pytest.param(
            _with_result(token=b"\xff\xfe"),
            "$.results[1].token",
            "expected `str`, got `bytes`",
            id="bytes for a token",
        ),
        pytest.param(_with_result(token="t\0"), "$.results[1].token", NUL, id="NUL in a token"),
        pytest.param(
            _with_result(token="t\udfff"),
            "$.results[1].token",
            LONE_SURROGATE,
            id="a lone surrogate in a token",
        ),
        # The rest.
        pytest.param(
            _payload(skipped="quiet_hours", results=[{"token": "t", "http_status": 200}]),
            "$.skipped",
            "cannot stand together with results",
            id="skipped, and yet sent",
        ),
        pytest.param(
            _payload(skipped=""), "$.skipped", "expected `str` of length >= 1", id="skipped without a word"
        ),
        pytest.param(
            _payload(skipped=True), "$.skipped", "expected `str | null`, got `bool`", id="true for skipped"
        ),
        pytest.param(_payload(skipped="a\0"), "$.skipped", NUL, id="NUL in skipped"),
        pytest.param(
            _payload(skipped="\ud800"), "$.skipped", LONE_SURROGATE, id="a lone surrogate in skipped"
        ),
        pytest.param(_payload(final="false"), "$.final", "expected `bool`, got `str`", id="text for final"),
        pytest.param(_payload(final=0), "$.final", "expected `bool`, got `int`", id="a number for final"),
    ],
)
def test_an_invalid_event_is_refused(payload: object, path: str, problem: str) -> None:
    assert _refusal(payload) == (path, problem)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("\ud800", id="for an event"),
        pytest.param(_payload(**{"\ud800": 1}), id="for a field name"),
        pytest.param(_with_result(**{"\ud800": 1}), id="for a field name in a result"),
        pytest.param(_payload(chapter_id="\ud800"), id="for an id"),
        pytest.param(_payload(delivery_channel="\ud800"), id="for a channel"),
        pytest.param(_payload(attempted_at="\ud800"), id="for a time"),
        pytest.param(_with_result(sent_at="\ud800"), id="for a time in a result"),
    ],
)
def test_a_lone_surrogate_is_refused_in_words_that_can_be_logged(payload: object) -> None:
    assert ": ".join(_refusal(payload)).isascii()


@pytest.mark.parametrize("status", [2**31, 10**5_000], ids=["2^31", "5,001 digits"])
def test_a_status_that_no_column_or_no_log_line_could_hold_is_refused(status: int) -> None:
    path, _ = _refusal(_with_result(http_status=status))

    assert path == "$.results[1].http_status"


# --- nothing the producer sent leaks --------------------------------------------------------------------

#: Never a name the contract knows, and never a word of a message.
MARKER = "S3CR3T"
quick = settings(max_examples=100, deadline=None, derandomize=True)

marked_text = st.builds(
    "".join,
    st.tuples(
        st.text(st.characters(exclude_categories=()), max_size=4),
        st.just(MARKER),
        st.sampled_from(["", "`", "` - at `$.", "` - at `key` in `$", ": ", "\n", "\0", "\ud800", "x" * 300])
        | st.text(max_size=4),
        st.just(MARKER),
    ),
)
junk = st.recursive(
    marked_text | marked_text.map(lambda text: text.encode(errors="replace")) | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(marked_text, inner, max_size=2),
    max_leaves=4,
)
FIELDS = (*Event.__struct_fields__, *SendResult.__struct_fields__)


def _said_of(payload: object) -> str:
    """Everything a log would show of a refusal, its traceback and causes included."""
    try:
        decode(payload)
    except InvalidEvent as refusal:
        return "".join(traceback.format_exception(refusal))
    return ""


@quick
@given(st.sampled_from(FIELDS) | marked_text, junk)
def test_no_refusal_repeats_a_value_of_an_event(field: str, value: object) -> None:
    assert MARKER not in _said_of(_payload(**{field: value}))


@quick
@given(st.sampled_from(FIELDS) | marked_text, junk)
def test_no_refusal_repeats_a_value_of_a_result(field: str, value: object) -> None:
    assert MARKER not in _said_of(_with_result(**{field: value}))


@quick
@given(junk)
def test_no_refusal_repeats_a_payload_that_is_no_event(payload: object) -> None:
    assert MARKER not in _said_of(payload)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(MARKER * 6, id="longer than any name"),
        pytest.param(f"{MARKER}:x", id="with a colon"),
        pytest.param(f"x: {MARKER}", id="like a message of one field"),
        pytest.param(f"x` - at `$.{MARKER}", id="like the end of a message"),
        pytest.param(f"x` - at `key` in `$.{MARKER}", id="like the end of a message about keys"),
        pytest.param(f"Invalid enum value {MARKER}", id="like another message"),
        pytest.param(f"x\n{MARKER}", id="of two lines"),
    ],
)
@pytest.mark.parametrize("place", [_payload, _with_result], ids=["in the event", "in a result"])
def test_no_refusal_repeats_the_name_of_an_unknown_field(place: Any, name: str) -> None:
    assert MARKER not in " ".join(_refusal(place(**{name: 1})))


@quick
@given(st.sampled_from(FIELDS) | st.text(st.characters(exclude_categories=()), max_size=3), junk)
def test_any_payload_decodes_or_is_refused(field: str, value: object) -> None:
    for payload in (value, _payload(**{field: value}), _with_result(**{field: value})):
        try:
            event = decode(payload)
        except InvalidEvent:
            continue
        assert isinstance(event, Event)


# --- a job's events -------------------------------------------------------------------------------------


def test_valid_events_keep_their_position() -> None:
    events, _ = decode_all([_payload(idempotency_key="a"), None, _payload(idempotency_key="b")])

    assert [(position, event.key) for position, event in events] == [(0, "a"), (2, "b")]


def test_refused_events_keep_their_position() -> None:
    _, rejected = decode_all([_payload(), _payload(final=1), _payload(), _with_result(token="")])

    assert rejected == [
        Rejected(1, "$.final", "expected `bool`, got `int`"),
        Rejected(3, "$.results[1].token", "expected `str` of length >= 1"),
    ]


def test_a_refused_event_explains_itself_in_one_line() -> None:
    _, rejected = decode_all([_payload(), _with_result(token="t\0")])

    assert str(rejected[0]) == "[1] $.results[1].token: contains a NUL character"


def test_no_refused_event_takes_the_others_with_it() -> None:
    bad: list[object] = [{**_payload(), "\ud800": 1}, _payload(chapter_id="\ud800"), {1: 2}, None, b"\xff"]

    events, rejected = decode_all([_payload(), *bad, _payload()])

    assert ([position for position, _ in events], len(rejected)) == ([0, 6], len(bad))


@pytest.mark.parametrize("container", [list, tuple])
def test_good_events_are_the_same_alone_and_together(container: type) -> None:
    payloads = [_payload(idempotency_key="a"), _with_result(token="b"), _payload(final=False)]

    assert decode_all(container(payloads)) == (list(enumerate(map(decode, payloads))), [])


def test_an_empty_job_holds_no_events() -> None:
    assert decode_all([]) == ([], [])
