"""What schedulers meet: firebase-admin over a transport of ours, and a worker for what they enqueue."""

import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import uuid4

import firebase_admin
import httpx
import psycopg
import pytest
import requests
from firebase_admin import credentials, messaging
from google.auth.credentials import Credentials
from redis import Redis
from redis.client import PubSubWorkerThread
from requests.adapters import BaseAdapter
from rq import SimpleWorker

from worker.demo import sample
from worker.servers.settings import settings

START = datetime(2026, 11, 16, 6, 0, tzinfo=UTC)

Answer = tuple[int, Any] | Exception


class Account(Credentials):
    """A service account that never asks Google for a token, unless told to fail at it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.token = "access"
        self.problem: Exception | None = None

    @property
    def valid(self) -> bool:
        return self.problem is None

    def refresh(self, request: object) -> None:
        if self.problem:
            raise self.problem


class Fcm:
    """FCM as firebase-admin's own HTTP clients see it: answers each token as told, else accepts the push."""

    def __init__(self) -> None:
        #: HTTP status and body (bytes, text, or what is to be JSON), or what the transport raises.
        self.answers: dict[str, Answer] = {}
        #: The tokens and FIDs asked about, ...
        self.sent: list[str] = []
        #: ... and as what.
        self.sent_as: dict[str, str] = {}
        self.account = Account()

    def answer(self, request_body: bytes) -> tuple[int, bytes]:
        message = json.loads(request_body)
        ((target, token),) = [
            (name, message["message"][name]) for name in ("token", "fid") if name in message["message"]
        ]
        self.sent.append(token)
        self.sent_as[token] = target
        name = "fake_message_id" if message.get("validate_only") else f"0:{token}"
        answer = self.answers.get(token, (200, {"name": f"projects/example/messages/{name}"}))
        if isinstance(answer, Exception):
            raise answer
        return answer[0], raw(answer[1])


def raw(body: Any) -> bytes:
    """A body as it goes over the wire."""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()


class _Adapter(BaseAdapter):
    def __init__(self, fcm: Fcm) -> None:
        super().__init__()
        self._fcm = fcm

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        response = requests.Response()
        assert isinstance(request.body, bytes)
        response.status_code, body = self._fcm.answer(request.body)
        response.raw, response.request, response.url = io.BytesIO(body), request, str(request.url)
        return response

    def close(self) -> None: ...


@pytest.fixture(scope="session")
def firebase() -> Iterator[Fcm]:
    """firebase-admin's default app, talking to an FCM of ours."""
    fcm = Fcm()

    class Certificate(credentials.Base):  # type: ignore[misc]
        def get_credential(self) -> Account:
            return fcm.account

    app = firebase_admin.initialize_app(Certificate(), {"projectId": "example"})
    service = messaging._get_messaging_service(app)
    service._client.session.mount("https://fcm.googleapis.com", _Adapter(fcm))

    def respond(request: httpx.Request) -> httpx.Response:
        status, body = fcm.answer(request.content)
        return httpx.Response(status, content=body)

    client = service._async_client.async_client
    client._mounts = dict.fromkeys(client._mounts, httpx.MockTransport(respond))
    yield fcm
    firebase_admin.delete_app(app)


@pytest.fixture
def fcm(firebase: Fcm) -> Fcm:
    """An FCM that accepts every push, until told otherwise."""
    firebase.answers.clear()
    firebase.sent.clear()
    firebase.sent_as.clear()
    firebase.account.problem = None
    return firebase


Work = Callable[..., None]


@pytest.fixture
def work(database: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """Run a worker within this process until the queue is empty; a stock one unless told."""
    monkeypatch.setenv("DATABASE_URL", database)
    # RQ waits up to a second for a thread that sometimes misses its call to end.
    monkeypatch.setattr(PubSubWorkerThread, "join", lambda self, timeout=None: Thread.join(self, 0.05))
    settings.cache_clear()

    def run(serializer: str | None = None, worker_class: type[Any] = SimpleWorker) -> None:
        worker_class(["notiflog"], connection=redis, serializer=serializer).work(burst=True)

    yield run
    settings.cache_clear()


@pytest.fixture
def statuses(connection: psycopg.Connection) -> Callable[[], list[str]]:
    """The statuses on record, sorted."""
    query = "select status from public.follow_up_notification_log order by status"
    return lambda: [status for (status,) in connection.execute(query)]


Record = Callable[..., str]


@pytest.fixture
def record(connection: psycopg.Connection, app: sample.App) -> Record:
    """Put one outcome on record and return its key: of the first mentor, chapter and rule unless told."""

    def insert(
        status: str = "delivered",
        *,
        key: str | None = None,
        minutes: int = 0,
        mentor: int = 0,
        chapter: int = 0,
        rule: int = 0,
    ) -> str:
        key = key or uuid4().hex
        connection.execute(
            "insert into public.follow_up_notification_log (peer_mentor_id, chapter_id, scenario_rule_id,"
            " delivered_at, delivery_channel, idempotency_key, status)"
            " values (%s, %s, %s, %s, 'fcm', %s, %s)",
            [
                app.users[mentor],
                app.chapters[chapter],
                app.rules[rule],
                START + timedelta(minutes=minutes),
                key,
                status,
            ],
        )
        return key

    return insert
