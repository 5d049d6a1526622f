"""What Python senders hold besides firebase-admin's and aioapns' results: the real objects of each library.

PyAPNs2 (`apns2`, `compat-fork-apns2`) pins an HTTP/2 library that cannot stand beside aioapns', so its
exceptions are stand-ins of the same module and names.
"""

import asyncio
import io
import json
from collections.abc import Callable
from email.message import Message as Headers
from http.client import HTTPResponse
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import aiohttp
import httpx
import kalyke.exceptions
import pyapns_client
import pytest
import requests
from aioapns.common import NotificationResult
from async_firebase import AsyncFirebaseClient
from async_firebase.messages import Message, MulticastMessage
from fcm_django.types import FirebaseResponseDict
from firebase_admin import exceptions, messaging
from hypothesis import given
from hypothesis import strategies as st
from kalyke.clients import __Client as KalykeClient
from push_notifications.exceptions import APNSError, APNSServerError
from pyfcm import FCMNotification
from requests.adapters import BaseAdapter

from tests.judge import quick
from tests.judge.cases import CASES, Case
from tests.scheduler.conftest import Account, Fcm, raw
from worker import apns
from worker import fcm as from_fcm
from worker.demo.sample import UNREGISTERED, fcm_error
from worker.judge.classify import classify

TIMESTAMP = 1_794_800_000_000
APNS_UNREGISTERED = {"reason": "Unregistered", "timestamp": TIMESTAMP}
HTML = "<html><title>Error 502 (Server Error)</title></html>"
NAME = "projects/example/messages/0:1"

#: HTTP status and body of FCM's answer, and what the worker makes of it.
ANSWERS: list[tuple[int, Any, str]] = [
    (200, {"name": NAME}, "accepted"),
    (*UNREGISTERED, "unregistered"),
    (404, {"error": {"code": 404, "message": "NotRegistered", "status": "NOT_FOUND"}}, "unregistered"),
    (*fcm_error(404, "NOT_FOUND", "Project 'example' was not found."), "not_found_contradicted"),
    (404, "Not Found", "not_found_contradicted"),
    (
        *fcm_error(403, "PERMISSION_DENIED", "No", FcmError={"errorCode": "SENDER_ID_MISMATCH"}),
        "sender_id_mismatch",
    ),
    (502, HTML, "bad_gateway"),
    (500, b"\xff", "internal_server_error"),
]

Provider = Any  # the modules `fcm` and `apns`


def reason(result: dict[str, Any]) -> str:
    return classify(result["delivery_channel"], result["http_status"], result["body"]).reason


def of_httpx(status: int, body: Any) -> httpx.Response:
    request = httpx.Request("POST", "https://push.example/")
    return httpx.Response(status, content=raw(body), request=request)


def of_requests(status: int, body: Any) -> requests.Response:
    response = requests.Response()
    response.status_code, response.raw = status, io.BytesIO(raw(body))
    return response


class TestFirebaseAdmin:
    """Its own judgement stands in the cases, and is asked of the library here."""

    @pytest.mark.parametrize(
        "case", [case for case in CASES if case.library == "firebase-admin-python"], ids=lambda case: case.why
    )
    def test_says_what_the_case_says_it_does(self, fcm: Fcm, case: Case) -> None:
        fcm.answers["fid"] = case.status or 0, case.body
        (response,) = messaging.send_each([messaging.Message(fid="fid")]).responses
        assert type(response.exception).__name__ == case.says


class TestHttp:
    """What plain HTTP clients return and raise, for both providers."""

    @pytest.mark.parametrize("make", [of_httpx, of_requests], ids=["httpx", "requests"])
    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
    def test_a_response(self, make: Callable[..., Any], status: int, body: Any, expected: str) -> None:
        result = from_fcm.result("token", make(status, body))
        assert (result["http_status"], result["body"]) == (status, raw(body).decode(errors="replace"))
        assert reason(result) == expected

    @pytest.mark.parametrize("make", [of_httpx, of_requests], ids=["httpx", "requests"])
    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS[1:])
    def test_the_response_inside_an_error(
        self, make: Callable[..., Any], status: int, body: Any, expected: str
    ) -> None:
        with pytest.raises((httpx.HTTPStatusError, requests.HTTPError)) as raised:
            make(status, body).raise_for_status()
        assert reason(from_fcm.result("token", raised.value)) == expected

    @pytest.mark.parametrize("provider", [from_fcm, apns])
    @pytest.mark.parametrize(
        "error",
        [
            httpx.ReadTimeout("late"),
            requests.ConnectionError("reset"),
            requests.HTTPError("no response"),
            TimeoutError(),
            asyncio.CancelledError(),
            Exception(SimpleNamespace(response="a text")),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_without_a_response_is_no_answer(self, provider: Provider, error: BaseException) -> None:
        result = provider.result("token", error)
        assert (result["http_status"], result["body"]) == (None, None)

    @pytest.mark.parametrize("status", [404, "404", b"404"], ids=repr)
    @pytest.mark.parametrize(
        ("provider", "body"), [(from_fcm, UNREGISTERED[1]), (apns, {"reason": "BadPath"})]
    )
    def test_status_headers_and_body(self, provider: Provider, status: Any, body: Any) -> None:
        for given_as in (json.dumps(body), json.dumps(body).encode(), body):
            result = provider.result("token", (status, {"content-type": "application/json"}, given_as))
            assert (result["http_status"], reason(result)) == (
                404,
                "unregistered" if provider is from_fcm else "bad_path",
            )

    def test_many_answers_at_once(self) -> None:
        answers = [of_httpx(200, {"name": NAME}), httpx.ReadTimeout("late"), of_requests(*UNREGISTERED)]
        results = from_fcm.results(["a", "b", "c"], answers)
        assert [(result["token"], reason(result)) for result in results] == [
            ("a", "accepted"),
            ("b", "no_answer"),
            ("c", "unregistered"),
        ]


class TestAsyncFirebase:
    def send(self, answers: dict[str, tuple[int, Any]], *fids: str, each: bool) -> Any:
        """What its client returns for the messages to some devices, answered so."""

        def respond(request: httpx.Request) -> httpx.Response:
            status, body = answers[json.loads(request.content)["message"]["fid"]]
            return httpx.Response(status, stream=httpx.ByteStream(raw(body)))

        async def push() -> Any:
            client = AsyncFirebaseClient(
                credentials=SimpleNamespace(project_id="example", valid=True, token="x")
            )
            client._http_client = httpx.AsyncClient(transport=httpx.MockTransport(respond))
            async with client:
                if each:
                    return await client.send_each_for_multicast(
                        MulticastMessage(fids=list(fids), data={"a": "b"})
                    )
                return await client.send(Message(fid=fids[0], data={"a": "b"}))

        return asyncio.run(push())

    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS[:-1])
    def test_one_message(self, status: int, body: Any, expected: str) -> None:
        answer = self.send({"fid": (status, body)}, "fid", each=False)
        result = from_fcm.result("fid", answer, target="fid")
        assert (result["http_status"], result["target"], reason(result)) == (status, "fid", expected)

    def test_many_messages(self) -> None:
        answers = {"a": (200, {"name": NAME}), "b": UNREGISTERED}
        results = from_fcm.results(["a", "b"], self.send(answers, "a", "b", each=True), target="fid")
        assert [reason(result) for result in results] == ["accepted", "unregistered"]


class _Adapter(BaseAdapter):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__()
        self.answer = status, body

    def send(self, *_: Any, **__: Any) -> requests.Response:
        return of_requests(*self.answer)

    def close(self) -> None: ...


class TestPyFcm:
    def notify(self, status: int, body: Any) -> Any:
        """What its client returns or raises for a message that is answered so."""
        client = FCMNotification(project_id="example", credentials=Account(), adapter=_Adapter(status, body))
        client._get_access_token = lambda: "access"
        try:
            return client.notify(fcm_token="token")
        except Exception as error:
            return error

    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (200, {"name": NAME}, "accepted"),
            (200, {"name": "projects/example/messages/fake_message_id"}, "dry_run"),
            (404, UNREGISTERED[1], "not_found"),  # the library keeps no more than the status
            (403, "", "permission_denied"),
            (401, "", "unauthenticated"),
            (503, "", "service_unavailable"),
            (429, "", "rate_limited"),
            (
                400,
                fcm_error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.")[1],
                "invalid_argument",
            ),
        ],
    )
    def test_what_it_returns_or_raises(self, status: int, body: Any, expected: str) -> None:
        result = from_fcm.result("token", self.notify(status, body))
        assert (result["http_status"], reason(result)) == (status, expected)

    def test_an_accepted_push_with_an_empty_body_is_no_answer_to_it(self) -> None:
        answer = self.notify(200, "")
        assert reason(from_fcm.result("token", answer)) == "no_answer"

    def test_its_async_form_keeps_the_bodies_alone(self) -> None:
        answers = [
            {"name": NAME},
            UNREGISTERED[1],
            fcm_error(404, "NOT_FOUND", "Requested entity was not found.")[1],
        ]
        results = from_fcm.results(["a", "b", "c"], answers)
        assert [(result["http_status"], reason(result)) for result in results] == [
            (200, "accepted"),
            (404, "unregistered"),
            (404, "not_found"),
        ]


def test_fcm_djangos_results() -> None:
    batch = messaging.BatchResponse(
        [
            messaging.SendResponse({"name": NAME}, None),
            messaging.SendResponse(None, exceptions.UnavailableError("reset")),
        ]
    )
    results = from_fcm.results(["a", "b"], FirebaseResponseDict(batch, ["a", "b"], []))
    assert [reason(result) for result in results] == ["accepted", "no_answer"]


class APNsException(Exception):
    """PyAPNs2's."""


class Unregistered(APNsException):
    """PyAPNs2's; the only one with a time."""

    def __init__(self, timestamp: int | None = None) -> None:
        super().__init__()
        self.timestamp = timestamp


class BadDeviceToken(APNsException):
    """PyAPNs2's."""


class ConnectionFailed(APNsException):
    """PyAPNs2's."""


for _class in (APNsException, Unregistered, BadDeviceToken, ConnectionFailed):
    _class.__module__ = "apns2.errors"


class TestPyApns2:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("Success", "accepted"),
            ("BadDeviceToken", "bad_device_token"),
            ("Unregistered", "unregistered"),
            ("TooManyRequests", "too_many_requests"),
            ("TimeoutError", "no_answer"),
            (("Unregistered", TIMESTAMP), "unregistered"),
            (("ExpiredToken", TIMESTAMP), "expired_token"),
            (("BadTopic", TIMESTAMP), "gone_contradicted"),
            (Unregistered(TIMESTAMP), "unregistered"),
            (Unregistered(), "unregistered"),
            (BadDeviceToken(), "bad_device_token"),
            (ConnectionFailed(), "no_answer"),
            (type("Lost", (Unregistered,), {})(), "no_answer"),  # a name that Apple does not give
        ],
        ids=repr,
    )
    def test_what_it_returns_or_raises(self, answer: Any, expected: str) -> None:
        assert reason(apns.result("token", answer)) == expected

    @pytest.mark.parametrize("answer", [("Unregistered", TIMESTAMP), Unregistered(TIMESTAMP)], ids=repr)
    def test_the_time_of_death_survives(self, answer: Any) -> None:
        assert apns.result("token", answer)["body"] == APNS_UNREGISTERED

    def test_the_results_of_a_batch_come_by_token(self) -> None:
        answers = {"b": ("Unregistered", TIMESTAMP), "a": "Success", "c": "BadDeviceToken"}
        results = apns.results(["a", "b"], answers)
        assert [(result["token"], reason(result)) for result in results] == [
            ("a", "accepted"),
            ("b", "unregistered"),
        ]

    def test_a_token_without_a_result(self) -> None:
        with pytest.raises(ValueError, match="1 of 2 tokens have no answer") as raised:
            apns.results(["a", "secret"], {"a": "Success"})
        assert "secret" not in str(raised.value)


class TestKalyke:
    @pytest.mark.parametrize("reason_given", ["Unregistered", "BadDeviceToken", "TooManyRequests"])
    def test_its_exceptions(self, reason_given: str) -> None:
        error = KalykeClient()._handle_error({"reason": reason_given, "timestamp": TIMESTAMP})
        assert apns.result("token", error)["body"] == {"reason": reason_given, "timestamp": TIMESTAMP}

    def test_an_accepted_push_has_an_id(self) -> None:
        assert reason(apns.result("token", "eabeae54-14a8-11e5-b60b-1697f925ec7b")) == "accepted"

    @pytest.mark.parametrize(
        "name",
        [
            name
            for name, cls in vars(kalyke.exceptions).items()
            if isinstance(cls, type) and issubclass(cls, kalyke.exceptions.ApnsProviderException)
        ][1:],
    )
    def test_every_reason_that_it_knows_has_a_name(self, name: str) -> None:
        assert classify("apns", 400, {"reason": name}).reason not in ("unknown_reason", "bad_request")


class _Socket(io.BytesIO):
    def makefile(self, mode: str) -> "_Socket":
        return self


def of_urllib(status: int, body: Any) -> HTTPResponse | HTTPError:
    """What `urlopen` returns, or raises."""
    if status != 200:
        return HTTPError("https://push.example/", status, "", Headers(), io.BytesIO(raw(body)))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(raw(body))
    response = HTTPResponse(_Socket(head + raw(body)))  # type: ignore[arg-type]
    response.begin()
    return response


class TestUrllib:
    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
    def test_a_response_or_an_error_that_is_one(self, status: int, body: Any, expected: str) -> None:
        assert reason(from_fcm.result("token", of_urllib(status, body))) == expected

    @pytest.mark.parametrize(
        ("status", "expected"), [(404, "no_answer"), (410, "no_answer"), (503, "service_unavailable")]
    )
    @pytest.mark.parametrize("end", ["read", "close"])
    def test_one_that_was_read_before_proves_no_death(self, end: str, status: int, expected: str) -> None:
        error = of_urllib(status, {"error": {"message": "Project 'example' was not found."}})
        getattr(error, end)()
        assert reason(from_fcm.result("token", error)) == expected

    def test_an_error_without_a_body(self) -> None:
        error = HTTPError("https://push.example/", 404, "", Headers(), None)
        assert reason(from_fcm.result("token", error)) == "no_answer"


class TestAiohttp:
    @pytest.mark.parametrize(
        ("status", "expected"),
        [(401, "unauthenticated"), (404, "no_answer"), (410, "no_answer"), (429, "rate_limited")],
    )
    def test_an_error_has_no_body_so_it_proves_no_death(self, status: int, expected: str) -> None:
        info = aiohttp.RequestInfo(None, "POST", None, None)  # type: ignore[arg-type]
        error = aiohttp.ClientResponseError(info, (), status=status)
        assert reason(from_fcm.result("token", error)) == expected


class TestPyapnsClient:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (pyapns_client.UnregisteredException(410, "id", TIMESTAMP), "unregistered"),
            (pyapns_client.UnregisteredException(410, "id", None), "unregistered"),
            (pyapns_client.BadDeviceTokenException(400, "id"), "bad_device_token"),
            (pyapns_client.ServiceUnavailableException(503, "id"), "service_unavailable"),
            (pyapns_client.APNSConnectionException(), "no_answer"),
        ],
        ids=repr,
    )
    def test_its_exceptions(self, error: Exception, expected: str) -> None:
        assert reason(apns.result("token", error)) == expected

    def test_the_time_of_death_survives(self) -> None:
        error = pyapns_client.UnregisteredException(410, "id", TIMESTAMP)
        assert apns.result("token", error)["body"] == APNS_UNREGISTERED


class TestDjangoPushNotifications:
    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ({"results": ["Success"]}, "accepted"),
            ({"results": [{"error": "Unregistered"}]}, "unregistered"),
            (APNSServerError(status="Unregistered"), "unregistered"),
            (APNSServerError(status="BadDeviceToken"), "bad_device_token"),
            (APNSServerError(status="ConnectionError"), "no_answer"),
            (APNSError("One or more errors failed with errors: Unregistered"), "no_answer"),  # whose?
            (NotificationResult("1", "failed", "TimeoutError"), "no_answer"),
            (NotificationResult("1", "failed", "CommunicationError: reset"), "no_answer"),
        ],
        ids=lambda value: getattr(value, "description", repr(value)),
    )
    def test_one_device(self, answer: Any, expected: str) -> None:
        assert reason(apns.result("token", answer)) == expected

    def test_a_querysets_results_come_by_application_and_token(self) -> None:
        results = apns.results(["a", "b"], [{"b": "Unregistered"}, {"a": "Success"}])
        assert [reason(result) for result in results] == ["accepted", "unregistered"]


class TestAnythingElse:
    @pytest.mark.parametrize("provider", [from_fcm, apns])
    @pytest.mark.parametrize(
        ("answer", "name"),
        [
            (None, "NoneType"),
            (404, "int"),
            (b"", "bytes"),
            (object(), "object"),
            ([], "list"),
            ({}, "dict"),
            ({"a": 1}, "dict"),
            ({"results": [1, 2]}, "dict"),
            ((), "tuple"),
            ((200, b""), "tuple"),
            (("²", {}, b""), "tuple"),
            (("404 Not Found", {}, b""), "tuple"),
            ((1.5, {}, b""), "tuple"),
            ((10**9, {}, b""), "tuple"),
            (httpx.Request("GET", "https://push.example/"), "httpx.Request"),
            (SimpleNamespace(status=404), "types.SimpleNamespace"),
        ],
        ids=lambda value: repr(value).partition(" at ")[0],
    )
    def test_is_a_type_error_that_names_it_and_what_is_accepted(
        self, provider: Provider, answer: Any, name: str
    ) -> None:
        with pytest.raises(TypeError, match=r"accepted: .*\(status, headers, body\)") as raised:
            provider.result("token", answer)
        assert f"of type {name};" in str(raised.value)

    @pytest.mark.parametrize("provider", [from_fcm, apns])
    @pytest.mark.parametrize("answers", [None, 404, "Success", b"", 1.5, {1, 2}], ids=repr)
    def test_many_at_once_want_a_list(self, provider: Provider, answers: Any) -> None:
        with pytest.raises(TypeError, match="accepted:"):
            provider.results(["a", "b"], answers)

    @quick
    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=9)
            | st.binary(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.tuples(inner, inner)
                | st.tuples(inner, inner, inner)
                | st.dictionaries(
                    st.sampled_from(["name", "error", "code", "results", "reason"]), inner, max_size=3
                )
            ),
            max_leaves=8,
        )
    )
    def test_nothing_else_is_ever_raised(self, answer: Any) -> None:
        for provider in (from_fcm, apns):
            try:
                result = provider.result("token", answer)
            except TypeError as error:
                assert "accepted:" in str(error)  # noqa: PT017 - the one error there may be
            else:
                assert result["http_status"] is None or 0 <= result["http_status"] <= 999


@pytest.mark.parametrize("provider", [from_fcm, apns])
@pytest.mark.parametrize("target", ["fid", "live_activity"])
def test_a_result_says_what_the_push_was_sent_to(provider: Provider, target: Any) -> None:
    (result,) = provider.results(["token"], [of_httpx(404, "")], target=target)
    assert result["target"] == target


class TestTokensAndFids:
    BATCH = messaging.BatchResponse([messaging.SendResponse({"name": NAME}, None)] * 3)

    def test_of_both_the_tokens_come_first(self, fcm: Fcm) -> None:
        with pytest.warns(DeprecationWarning, match="fids"):
            message = messaging.MulticastMessage(tokens=["a"], fids=["b", "c"])
        fcm.answers["b"] = UNREGISTERED
        results = from_fcm.results(["a"], messaging.send_each_for_multicast(message), fids=["b", "c"])
        assert [(r["token"], r.get("target", "token"), reason(r)) for r in results] == [
            ("a", "token", "accepted"),
            ("b", "fid", "unregistered"),
            ("c", "fid", "accepted"),
        ]

    def test_fids_alone(self) -> None:
        results = from_fcm.results(fids=["a", "b", "c"], answer=self.BATCH)
        assert [result["target"] for result in results] == ["fid"] * 3

    def test_one_exception_for_all(self) -> None:
        results = from_fcm.results(["a"], TimeoutError(), fids=["b"])
        assert [(result["token"], reason(result)) for result in results] == [
            ("a", "no_answer"),
            ("b", "no_answer"),
        ]

    @pytest.mark.parametrize(("tokens", "fids"), [(["a"], ["b"]), ([], ["a"]), (["a"] * 4, [])])
    def test_they_must_be_as_many_as_the_answers(self, tokens: list[str], fids: list[str]) -> None:
        with pytest.raises(ValueError, match=f"{len(tokens) + len(fids)} tokens, but 3 answers"):
            from_fcm.results(tokens, self.BATCH, fids=fids)


@pytest.mark.parametrize("provider", [from_fcm, apns])
def test_a_result_says_nothing_of_a_token(provider: Provider) -> None:
    assert "target" not in provider.result("token", of_httpx(404, ""))
