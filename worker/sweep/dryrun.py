"""Ask FCM about device tokens without sending anything: its dry run (`validate_only`).

FCM checks the token's registration and answers as it would a push. It does not ask Apple: an iOS token that
is dead only at APNs looks alive here. APNs itself has no dry run.

Sources: https://firebase.google.com/docs/cloud-messaging/manage-tokens, firebase-admin 7.7 (`messaging`)
"""

import os
import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from .. import fcm
from ..extras import extra
from ..judge.classify import Verdict, classify, is_fid
from ..judge.rules import ACCEPTED
from ..servers import credentials

# An FCM registration token is "<installation id>:<secret>"; an APNs device token is hexadecimal, 32 bytes or
# more. Anything else may be another kind of address, of which FCM would say UNREGISTERED though it works.
_FCM_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,}:[A-Za-z0-9_-]{64,}")
_APNS_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){32,100}")

# Seconds; firebase-admin's own 120 would keep outcomes waiting.
_TIMEOUT = 10

#: "fcm" is a registration token, "fid" a Firebase installation id.
Kind = Literal["fcm", "fid", "apns", "unknown"]


class NoProject(Exception):
    """Firebase is not set up here; says what to do, and no data."""


def kind(token: str) -> Kind:
    """Whose token it is, told by its form; only FCM's own may be asked about."""
    if _FCM_TOKEN.fullmatch(token):
        return "fcm"
    if is_fid(token):
        return "fid"
    return "apns" if _APNS_TOKEN.fullmatch(token) else "unknown"


def connect() -> None:
    """Make firebase-admin's default app of the environment's credentials, if there is none yet.

    Asks nobody whether they are good. Raises NoProject.
    """
    with extra("sweep", NoProject):  # heavy, and not for those who record
        import firebase_admin
        from google.auth.exceptions import GoogleAuthError

    if problem := credentials.unusable(os.environ):
        raise NoProject(f"no Firebase project: {credentials.VARIABLE} {problem}; {credentials.REMEDY}")
    try:
        if not firebase_admin._apps:
            firebase_admin.initialize_app(options={"httpTimeout": _TIMEOUT})
        app = firebase_admin.get_app()
        app.credential.get_credential()
        project = app.project_id
    except (ValueError, GoogleAuthError):  # their texts quote the file's name, and more
        project = None
    if not project:
        unset = not os.environ.get(credentials.VARIABLE)
        what = "is not set" if unset else "names a file that Google's library cannot use"
        raise NoProject(f"no Firebase project: {credentials.VARIABLE} {what}; {credentials.REMEDY}")


def check(tokens: Sequence[str]) -> list[Verdict]:
    """Ask FCM about some of its tokens and FIDs, 500 at most, and judge the answers as those of sends.

    Uses firebase-admin's default app, made from the environment's credentials if there is none yet. Where FCM
    does not answer, or its answers cannot be read, the verdicts are transient. Raises NoProject.
    """
    with extra("sweep", NoProject):  # heavy, and not for those who record
        from firebase_admin import exceptions, messaging
        from google.auth.exceptions import GoogleAuthError

    if not tokens:
        return []
    connect()
    answer: Any
    try:
        with warnings.catch_warnings():
            # Deprecated or not: what was registered as a token is known by that alone.
            warnings.simplefilter("ignore", DeprecationWarning)
            messages = [messaging.Message(**{"fid" if is_fid(token) else "token": token}) for token in tokens]
        answer = messaging.send_each(messages, dry_run=True)
    except (exceptions.FirebaseError, GoogleAuthError) as error:
        cause = getattr(error, "cause", None) or error
        if len(tokens) > 1 and not isinstance(cause, GoogleAuthError):
            # One answer that the library cannot read costs the whole call: find out whose it is.
            half = len(tokens) // 2
            return check(tokens[:half]) + check(tokens[half:])
        answer = error
    return [classify("fcm", result["http_status"], result["body"]) for result in fcm.results(tokens, answer)]


def is_alive(verdict: Verdict) -> bool:
    """Whether FCM found the token good: no delivery, but a sign of life."""
    return verdict.reason == "dry_run" or verdict.evidence is ACCEPTED
