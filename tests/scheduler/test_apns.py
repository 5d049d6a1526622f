"""What APNs clients hand over, made into send results: aioapns and httpx, over connections of ours."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
import pytest
from aioapns import NotificationRequest
from aioapns.connection import APNsProductionClientProtocol
from aioapns.exceptions import ConnectionClosed, MaxAttemptsExceeded
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from worker import apns
from worker.judge.answers import read_apns
from worker.judge.classify import classify

TIMESTAMP = 1_794_800_000_000
HTML = "<html><title>502 Bad Gateway</title></html>"

#: HTTP status, body, and what the worker makes of it.
ANSWERS: list[tuple[int, bytes, str]] = [
    (200, b"", "accepted"),
    (410, json.dumps({"reason": "Unregistered", "timestamp": TIMESTAMP}).encode(), "unregistered"),
    (410, b'{"reason": "ExpiredToken"}', "expired_token"),
    (400, b'{"reason": "BadDeviceToken"}', "bad_device_token"),
    (404, b'{"reason": "BadPath"}', "bad_path"),
    (403, b'{"reason": "InvalidProviderToken"}', "invalid_provider_token"),
    (429, b'{"reason": "TooManyRequests"}', "too_many_requests"),
    (503, b'{"reason": "Shutdown"}', "shutdown"),
    (400, b'{"reason": "NewlyInvented"}', "unknown_reason"),
]
#: Those that aioapns cannot read.
ODD: list[tuple[int, bytes, str]] = [
    (502, HTML.encode(), "server_error"),
    (410, HTML.encode(), "gone_contradicted"),
    (404, b"", "not_found_contradicted"),
    (500, b"\xff", "server_error"),
]


def reason(result: dict[str, Any]) -> str:
    assert result["delivery_channel"] == "apns"
    return classify("apns", result["http_status"], result["body"]).reason


class Apns(asyncio.Transport):
    """Apple's end of an HTTP/2 connection: answers every request as told."""

    def __init__(self, protocol: asyncio.Protocol, status: int, body: bytes) -> None:
        super().__init__()
        self.protocol, self.status, self.body = protocol, status, body
        self.http2 = H2Connection(H2Configuration(client_side=False))
        self.http2.initiate_connection()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        for event in self.http2.receive_data(bytes(data)):
            if isinstance(event, RequestReceived):
                apns_id = next(value for name, value in event.headers if name == b"apns-id")
                headers = [(b":status", str(self.status).encode()), (b"apns-id", apns_id)]
                self.http2.send_headers(event.stream_id, headers, end_stream=not self.body)
                if self.body:
                    self.http2.send_data(event.stream_id, self.body, end_stream=True)
        if answer := self.http2.data_to_send():
            asyncio.get_running_loop().call_soon(self.protocol.data_received, answer)

    def close(self) -> None: ...


def push_aioapns(status: int, body: bytes) -> Any:
    """aioapns' result of one push that is answered so."""

    async def push() -> Any:
        protocol = APNsProductionClientProtocol("com.example.app")
        protocol.connection_made(Apns(protocol, status, body))
        try:
            request = NotificationRequest("token", {"aps": {}})
            return await asyncio.wait_for(protocol.send_notification(request), timeout=0.5)
        finally:
            cast(asyncio.TimerHandle, protocol.inactivity_timer).cancel()

    return asyncio.run(push())


def push_httpx(status: int, body: bytes) -> httpx.Response:
    """httpx' response to one push that is answered so."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    with httpx.Client(transport=transport) as client:
        return client.post("https://api.push.apple.com/3/device/token", json={"aps": {}})


class TestAioapns:
    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
    def test_keeps_the_status_and_what_the_library_read(
        self, status: int, body: bytes, expected: str
    ) -> None:
        result = apns.result("token", push_aioapns(status, body))
        assert (result["http_status"], result["body"]) == (status, json.loads(body) if body else None)
        assert reason(result) == expected

    def test_waits_for_ever_for_an_error_without_a_body(self) -> None:
        """Which is why the README's example sets a time limit."""
        with pytest.raises(TimeoutError) as raised:
            push_aioapns(404, b"")
        assert reason(apns.result("token", raised.value)) == "no_answer"

    def test_the_time_of_death_survives(self) -> None:
        status, body, _ = ANSWERS[1]
        result = apns.result("token", push_aioapns(status, body))
        died = read_apns(result["http_status"], result["body"]).dead_since
        assert died is not None
        assert died.timestamp() * 1000 == TIMESTAMP


class TestHttpx:
    @pytest.mark.parametrize(("status", "body", "expected"), ANSWERS + ODD)
    def test_keeps_the_body_as_it_came(self, status: int, body: bytes, expected: str) -> None:
        result = apns.result("token", push_httpx(status, body))
        assert (result["http_status"], result["body"]) == (status, body.decode(errors="replace"))
        assert reason(result) == expected

    def test_an_exception_with_its_answer(self) -> None:
        with pytest.raises(httpx.HTTPStatusError) as raised:
            push_httpx(410, b'{"reason": "Unregistered"}').raise_for_status()
        assert reason(apns.result("token", raised.value)) == "unregistered"


@pytest.mark.parametrize(
    "to_status", [int, str, lambda status: str(status).encode()], ids=["int", "str", "bytes"]
)
@pytest.mark.parametrize(("status", "body", "expected"), ANSWERS + ODD)
def test_plain_http(to_status: Callable[[int], Any], status: int, body: bytes, expected: str) -> None:
    result = apns.result("token", (to_status(status), {"apns-id": "1"}, body))
    assert (result["http_status"], result["body"]) == (status, body.decode(errors="replace"))
    assert reason(result) == expected


def test_plain_http_with_its_body_decoded_or_missing() -> None:
    assert apns.result("token", (200, None, None))["body"] is None
    assert apns.result("token", (502, None, HTML))["body"] == HTML


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        asyncio.CancelledError(),
        httpx.ReadTimeout("late"),
        httpx.RemoteProtocolError("reset"),
        ConnectionClosed("lost"),
        MaxAttemptsExceeded(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_is_no_answer(error: BaseException) -> None:
    result = apns.result("token", error)
    assert (result["http_status"], result["body"], reason(result)) == (None, None, "no_answer")


def test_many_pushes_at_once_keep_their_tokens() -> None:
    async def push(status: int) -> httpx.Response:
        if not status:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, content=b"" if status == 200 else b'{"reason": "Unregistered"}')

    async def push_all(pushes: list[Awaitable[httpx.Response]]) -> Any:
        return await asyncio.gather(*pushes, return_exceptions=True)

    answers = asyncio.run(push_all([push(200), push(0), push(410)]))
    results = apns.results(["a", "b", "c"], answers)
    assert [(result["token"], reason(result)) for result in results] == [
        ("a", "accepted"),
        ("b", "no_answer"),
        ("c", "unregistered"),
    ]


def test_tokens_and_answers_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="1 tokens, but 2 answers"):
        apns.results(["a"], [TimeoutError(), TimeoutError()])
