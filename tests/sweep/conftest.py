"""firebase-admin's default app with an FCM of ours behind it, and a table of tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import firebase_admin
import psycopg
import pytest
from firebase_admin import credentials, messaging

from tests.scheduler.conftest import Account, Fcm, _Adapter
from worker.demo import sample
from worker.demo.sample import fcm_error
from worker.servers.settings import Settings

DEAD = fcm_error(404, "NOT_FOUND", "Requested entity was not found.", FcmError={"errorCode": "UNREGISTERED"})
BUSY = fcm_error(503, "UNAVAILABLE", "Busy.", FcmError={"errorCode": "UNAVAILABLE"})
APNS_TOKEN = "0123456789abcdef" * 4
FID = "cGVlciBtZW50b3IgMTIzNA"

Register = Callable[..., list[str]]


@pytest.fixture
def fcm() -> Iterator[Fcm]:
    """An FCM that knows every token, until told otherwise."""
    fcm = Fcm()

    class Certificate(credentials.Base):  # type: ignore[misc]
        def get_credential(self) -> Account:
            return fcm.account

    another = firebase_admin._apps.pop("[DEFAULT]", None)
    app = firebase_admin.initialize_app(Certificate(), {"projectId": "example"})
    session = messaging._get_messaging_service(app)._client.session
    session.mount("https://fcm.googleapis.com", _Adapter(fcm))
    yield fcm
    firebase_admin.delete_app(app)
    if another:
        firebase_admin._apps["[DEFAULT]"] = another


@pytest.fixture
def config(database: str) -> Settings:
    return Settings(database_url=database)


@pytest.fixture
def register(connection: psycopg.Connection, app: sample.App) -> Register:
    """Put tokens into the app's table: FCM's, some days old."""

    def register(n: int = 0, *tokens: str, days: float = 1) -> list[str]:
        made = [fcm_token(number) for number in range(n)] + list(tokens)
        connection.execute(
            "insert into public.device_tokens "
            "select token, %s, now() - make_interval(secs => %s) from unnest(%s::text[]) as token",
            [app.users[0], days * 86_400, made],
        )
        return made

    return register


def fcm_token(number: int) -> str:
    """A token of the form that FCM gives; higher numbers come later in the table."""
    return f"{number:022d}:APA91b{'x' * 128}"


def left(connection: psycopg.Connection) -> list[Any]:
    """The tokens in the app's table, in order."""
    return [token for (token,) in connection.execute("select token from public.device_tokens order by 1")]
