"""firebase-admin's objects to send results: the real library over a transport of ours, odd cases and all."""

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest
import requests
from firebase_admin import exceptions, messaging
from google.auth.exceptions import RefreshError

from tests.scheduler.conftest import Fcm, raw
from worker import fcm as from_fcm
from worker.demo.sample import fcm_error
from worker.judge.classify import classify

pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated. Use .*fid.* instead:DeprecationWarning")

NOT_FOUND = "Requested entity was not found."
UNREGISTERED = {"errorCode": "UNREGISTERED"}
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
HTML = "<!DOCTYPE html><html><title>Error 502 (Server Error)</title></html>"


def send_sync(messages: list[Any], **options: Any) -> Any:
    return messaging.send_each(messages, **options)


def send_async(messages: list[Any], **options: Any) -> Any:
    return asyncio.run(messaging.send_each_async(messages, **options))


SENDERS = [pytest.param(send_sync, id="sync"), pytest.param(send_async, id="async")]
Send = Callable[..., Any]


def to(*tokens: str) -> list[Any]:
    return [messaging.Message(token=token) for token in tokens]


def attempt(send: Send, messages: list[Any], **options: Any) -> Any:
    """What a scheduler passes on: the answer, or the exception instead of it."""
    try:
        return send(messages, **options)
    except Exception as error:
        return error


def reason(result: dict[str, Any]) -> str:
    return classify("fcm", result["http_status"], result["body"]).reason


class Case(NamedTuple):
    """An error answer: what the library makes of it, and what the worker reads from its raw body."""

    name: str
    status: int
    body: Any
    library: type[Exception]
    code: str
    reason: str


def details(*found: Any) -> dict[str, Any]:
    return {"error": {"code": 404, "message": NOT_FOUND, "status": "NOT_FOUND", "details": list(found)}}


ANSWERS = [
    Case(
        "unregistered",
        *fcm_error(404, "NOT_FOUND", NOT_FOUND, FcmError=UNREGISTERED),
        messaging.UnregisteredError,
        "NOT_FOUND",
        "unregistered",
    ),
    Case(
        "no word on what was not found: the same code, another class",
        *fcm_error(404, "NOT_FOUND", NOT_FOUND),
        exceptions.NotFoundError,
        "NOT_FOUND",
        "not_found",
    ),
    Case(
        "wrong project: the very same class",
        *fcm_error(404, "NOT_FOUND", "Project 'example' was not found."),
        exceptions.NotFoundError,
        "NOT_FOUND",
        "not_found_contradicted",
    ),
    Case(
        "the first FcmError has no code, the library looks no further",
        404,
        details({"@type": FCM_ERROR}, {"@type": FCM_ERROR, **UNREGISTERED}),
        exceptions.NotFoundError,
        "NOT_FOUND",
        "unregistered",
    ),
    Case(
        "the documentation's spelling",
        404,
        details({"@type": FCM_ERROR, "error_code": "UNREGISTERED"}),
        exceptions.NotFoundError,
        "NOT_FOUND",
        "unregistered",
    ),
    Case(
        "unregistered, with 400",
        *fcm_error(400, "INVALID_ARGUMENT", "Bad", FcmError=UNREGISTERED),
        messaging.UnregisteredError,
        "NOT_FOUND",
        "unregistered",
    ),
    Case(
        "APNs' words, which the exception does not carry",
        *fcm_error(
            400,
            "INVALID_ARGUMENT",
            "APNs device token is disabled.",
            FcmError={"errorCode": "INVALID_ARGUMENT"},
            ApnsError={"statusCode": 410, "reason": "Unregistered"},
        ),
        exceptions.InvalidArgumentError,
        "INVALID_ARGUMENT",
        "apns_unregistered",
    ),
    Case(
        "sender mismatch",
        *fcm_error(403, "PERMISSION_DENIED", "No", FcmError={"errorCode": "SENDER_ID_MISMATCH"}),
        messaging.SenderIdMismatchError,
        "PERMISSION_DENIED",
        "sender_id_mismatch",
    ),
    Case(
        "APNs key in the console",
        *fcm_error(401, "UNAUTHENTICATED", "No", FcmError={"errorCode": "THIRD_PARTY_AUTH_ERROR"}),
        messaging.ThirdPartyAuthError,
        "UNAUTHENTICATED",
        "third_party_auth_error",
    ),
    Case(
        "quota",
        *fcm_error(429, "RESOURCE_EXHAUSTED", "Slow", FcmError={"errorCode": "QUOTA_EXCEEDED"}),
        messaging.QuotaExceededError,
        "RESOURCE_EXHAUSTED",
        "quota_exceeded",
    ),
    Case("an HTML page", 502, HTML, exceptions.UnknownError, "UNKNOWN", "bad_gateway"),
    Case("nothing", 504, "", exceptions.UnknownError, "UNKNOWN", "gateway_timeout"),
    Case(
        "a deadline in words",
        *fcm_error(504, "DEADLINE_EXCEEDED", "Late"),
        exceptions.DeadlineExceededError,
        "DEADLINE_EXCEEDED",
        "gateway_timeout",
    ),
    Case("gone", 410, "", exceptions.UnknownError, "UNKNOWN", "gone"),
    Case("a list", 404, [{"error": {}}], exceptions.NotFoundError, "NOT_FOUND", "not_found_contradicted"),
    Case("a proxy's page", 404, HTML, exceptions.NotFoundError, "NOT_FOUND", "not_found_contradicted"),
]

#: Bodies that firebase-admin cannot read: with one of them a call for any number of tokens raises.
UNREADABLE: dict[str, tuple[int, Any]] = {
    "the error is text": (404, {"error": "not found"}),
    "the error is null": (404, {"error": None}),
    "details are null": (404, {"error": {"details": None}}),
    "details are text": (404, {"error": {"details": ["UNREGISTERED"]}}),
    "not UTF-8": (404, b"\xff\xfe"),
    "accepted with a list": (200, [1]),
}


class TestAnswers:
    @pytest.mark.parametrize("send", SENDERS)
    @pytest.mark.parametrize("case", ANSWERS, ids=lambda case: case.name)
    def test_status_and_body_come_through_as_they_were(self, fcm: Fcm, send: Send, case: Case) -> None:
        fcm.answers["odd"] = case.status, case.body
        answer = send(to("fine", "odd"))
        error = answer.responses[1].exception
        assert (type(error), error.code) == (case.library, case.code)

        fine, odd = from_fcm.results(["fine", "odd"], answer)
        assert fine == {
            "token": "fine",
            "http_status": 200,
            "body": {"name": "projects/example/messages/0:fine"},
            "delivery_channel": "fcm",
        }
        assert odd == {
            "token": "odd",
            "http_status": case.status,
            "body": raw(case.body).decode(),
            "delivery_channel": "fcm",
        }
        assert reason(odd) == case.reason

    @pytest.mark.parametrize("send", SENDERS)
    @pytest.mark.parametrize("body", [{}, None, [], 0], ids=repr)
    def test_no_exception_and_no_name_is_not_delivered(self, fcm: Fcm, send: Send, body: Any) -> None:
        fcm.answers["odd"] = 200, body
        answer = send(to("odd"))
        (response,) = answer.responses
        assert (response.success, response.exception, response.message_id) == (False, None, None)
        (result,) = from_fcm.results(["odd"], answer)
        assert (result["http_status"], result["body"], reason(result)) == (200, {}, "unexpected_body")

    @pytest.mark.parametrize("send", SENDERS)
    def test_a_dry_run_delivers_nothing(self, fcm: Fcm, send: Send) -> None:
        (result,) = from_fcm.results(["token"], send(to("token"), dry_run=True))
        assert reason(result) == "dry_run"

    def test_one_multicast_message_to_all_of_a_mentors_devices(self, fcm: Fcm) -> None:
        fcm.answers["old"] = 404, details({"@type": FCM_ERROR, **UNREGISTERED})
        answer = messaging.send_each_for_multicast(messaging.MulticastMessage(tokens=["new", "old"]))
        assert [reason(result) for result in from_fcm.results(["new", "old"], answer)] == [
            "accepted",
            "unregistered",
        ]


class TestNoAnswer:
    @pytest.mark.parametrize(
        ("raised", "library"),
        [
            (requests.exceptions.ReadTimeout("late"), exceptions.DeadlineExceededError),
            (requests.exceptions.ConnectTimeout("late"), exceptions.DeadlineExceededError),
            (requests.exceptions.ConnectionError("reset"), exceptions.UnavailableError),
            (requests.exceptions.SSLError("bad"), exceptions.UnavailableError),
            (requests.exceptions.ChunkedEncodingError("cut"), exceptions.UnknownError),
            (requests.exceptions.RetryError("enough"), exceptions.UnknownError),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    def test_lost_connections_and_timeouts(self, fcm: Fcm, raised: Exception, library: type) -> None:
        fcm.answers["odd"] = raised
        self.check(send_sync, library)

    @pytest.mark.parametrize(
        ("raised", "library"),
        [
            (httpx.ReadTimeout("late"), exceptions.DeadlineExceededError),
            (httpx.ConnectError("refused"), exceptions.UnavailableError),
            (httpx.ReadError("reset"), exceptions.UnknownError),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    def test_lost_connections_and_timeouts_of_the_async_client(
        self, fcm: Fcm, raised: Exception, library: type
    ) -> None:
        fcm.answers["odd"] = raised
        self.check(send_async, library)

    @pytest.mark.parametrize("body", [HTML, ""], ids=["HTML", "empty"])
    def test_an_accepted_push_whose_body_is_no_json(self, fcm: Fcm, body: str) -> None:
        fcm.answers["odd"] = 200, body
        self.check(send_sync, exceptions.UnknownError)

    def check(self, send: Send, library: type) -> None:
        answer = send(to("fine", "odd"))
        error = answer.responses[1].exception
        assert (type(error), error.http_response) == (library, None)
        fine, odd = from_fcm.results(["fine", "odd"], answer)
        assert (odd["http_status"], odd["body"], reason(odd)) == (None, None, "no_answer")
        assert reason(fine) == "accepted"


class TestEscapingExceptions:
    @pytest.mark.parametrize("send", SENDERS)
    @pytest.mark.parametrize("name", UNREADABLE)
    def test_one_unreadable_answer_leaves_every_token_without(self, fcm: Fcm, send: Send, name: str) -> None:
        fcm.answers["odd"] = UNREADABLE[name]
        error = attempt(send, to("fine", "odd", "other"))
        assert type(error) is exceptions.UnknownError
        assert {"fine", "odd"} <= set(fcm.sent)  # one that was accepted is lost with it
        results = from_fcm.results(["fine", "odd", "other"], error)
        assert [(r["token"], r["http_status"], r["body"], reason(r)) for r in results] == [
            (token, None, None, "no_answer") for token in ("fine", "odd", "other")
        ]

    @pytest.mark.parametrize("send", SENDERS)
    def test_no_access_token(self, fcm: Fcm, send: Send) -> None:
        fcm.account.problem = RefreshError("invalid_grant")  # type: ignore[no-untyped-call]
        error = attempt(send, to("a", "b"))
        assert (type(error), type(error.cause)) == (exceptions.UnknownError, RefreshError)
        assert [reason(result) for result in from_fcm.results(["a", "b"], error)] == ["no_answer"] * 2

    @pytest.mark.parametrize("send", SENDERS)
    def test_no_messages_no_results(self, fcm: Fcm, send: Send) -> None:
        assert from_fcm.results([], attempt(send, [])) == []

    @pytest.mark.parametrize("send", SENDERS)
    def test_what_the_library_refuses_to_send_has_no_result(self, fcm: Fcm, send: Send) -> None:
        error = attempt(send, to(*["token"] * 501))
        assert fcm.sent == []
        with pytest.raises(ValueError, match="must not contain more than 500") as raised:
            from_fcm.results(["token"] * 501, error)
        assert raised.value is error


class TestSingleSend:
    def test_returns_the_messages_name(self, fcm: Fcm) -> None:
        result = from_fcm.result("token", messaging.send(*to("token")))
        assert (result["http_status"], reason(result)) == (200, "accepted")

    def test_an_error_with_its_answer(self, fcm: Fcm) -> None:
        fcm.answers["old"] = 404, details({"@type": FCM_ERROR, **UNREGISTERED})
        with pytest.raises(messaging.UnregisteredError) as raised:
            messaging.send(*to("old"))
        assert reason(from_fcm.result("old", raised.value)) == "unregistered"

    @pytest.mark.parametrize(
        ("answer", "library"),
        [
            (UNREADABLE["the error is text"], AttributeError),
            (UNREADABLE["details are null"], TypeError),
            (UNREADABLE["not UTF-8"], UnicodeDecodeError),
            ((200, {}), KeyError),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_an_error_of_the_library_itself(self, fcm: Fcm, answer: Any, library: type[Exception]) -> None:
        fcm.answers["odd"] = answer
        with pytest.raises(library) as raised:
            messaging.send(*to("odd"))
        assert reason(from_fcm.result("odd", raised.value)) == "no_answer"

    def test_no_access_token(self, fcm: Fcm) -> None:
        fcm.account.problem = RefreshError("invalid_grant")  # type: ignore[no-untyped-call]
        with pytest.raises(RefreshError) as raised:
            messaging.send(*to("token"))
        assert reason(from_fcm.result("token", raised.value)) == "no_answer"


def test_results_can_be_stored_where_the_librarys_objects_cannot(fcm: Fcm) -> None:
    fcm.answers["odd"] = 502, HTML
    answer = send_sync(to("odd"))
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(exceptions.FirebaseError("UNKNOWN", "said")))  # noqa: S301 - our own
    with pytest.raises(TypeError):
        json.dumps(answer.responses[0].exception.__dict__)
    results = from_fcm.results(["odd"], answer)
    assert json.loads(json.dumps(results)) == pickle.loads(pickle.dumps(results)) == results  # noqa: S301


def test_tokens_and_answers_must_be_as_many(fcm: Fcm) -> None:
    with pytest.raises(ValueError, match="3 tokens, but 2 answers"):
        from_fcm.results(["a", "b", "c"], send_sync(to("a", "b")))
