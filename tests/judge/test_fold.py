"""An event's answers folded into one outcome, and whose death a notice speaks of."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.judge import quick
from tests.judge.cases import CASES
from worker.events import Channel, Event, SendResult, Target
from worker.judge.classify import Outcome, StaleToken, classify, fold, is_fid, stale_tokens

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


@pytest.mark.parametrize("channel", ["fcm", "apns"])
def test_an_acceptance_by_the_other_channel_counts_as_well(channel: Channel) -> None:
    other: Channel = "apns" if channel == "fcm" else "fcm"
    body = {"error": {"status": "NOT_FOUND"}} if channel == "fcm" else {"reason": "Unregistered"}
    status = 404 if channel == "fcm" else 410
    gone = SendResult(token="ab", http_status=status, body=body, delivery_channel=channel)
    last = SendResult(token="ab", http_status=200, sent_at=SENT + timedelta(hours=1), delivery_channel=other)
    assert stale_tokens([fold(_event(gone, last))]) == []


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
