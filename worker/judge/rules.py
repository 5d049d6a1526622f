"""What the providers' answers mean: ordered tables of rules, first match wins, one table per provider.

A rule's name is the *reason* seen in logs and reports. A token is pruned only on proof (or, as the one
presumption, on an unexplained 404 of FCM): answers that blame a project, a credential, a payload or a proxy
come to every token alike.

Sources: FCM error codes, https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode; APNs responses,
https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from .answers import ApnsAnswer, FcmAnswer
from .apns_words import SUCCESS


class Evidence(StrEnum):
    """What an answer proves about the token it was given for."""

    ACCEPTED = "accepted"  # the provider took the push: the token is alive
    PROVEN_DEAD = "proven_dead"  # the provider says so of this very token: prune
    PRESUMED_DEAD = "presumed_dead"  # a 404 that blames nothing else: prune
    UNPROVEN = "unproven"  # the fault lies, or may lie, elsewhere: keep
    TRANSIENT = "transient"  # no verdict, trying again may help: keep


ACCEPTED, PROVEN_DEAD, PRESUMED_DEAD, UNPROVEN, TRANSIENT = Evidence


Answer = TypeVar("Answer", FcmAnswer, ApnsAnswer)


class Rule(NamedTuple, Generic[Answer]):
    """One line of a table: when `matches`, the answer is `evidence` because of `reason`."""

    reason: str
    evidence: Evidence
    matches: Callable[[Answer], bool]


# --- FCM HTTP v1 ----------------------------------------------------------------------------------------

# FCM's web push endpoint about a subscription that is over; other texts with a 410 may be anybody's, HTTP's
# own "Gone" included.
_SUBSCRIPTION_ENDED = re.compile(
    r"(push )?subscription has (unsubscribed|expired|unsubscribed or expired)\.?|unsubscribed?"
)


def _fcm_says(code: str) -> Callable[[FcmAnswer], bool]:
    codes = frozenset((code,))
    return lambda a: a.codes == codes


_fcm_unregistered = _fcm_says("UNREGISTERED")
_fcm_invalid_argument = _fcm_says("INVALID_ARGUMENT")


def _fcm_blames_us(a: FcmAnswer) -> bool:
    # Credentials are looked at before any token, so every token gets the same answer. UNREGISTERED inside it
    # is known from libraries' own tests alone, which pair each status with each code; none was ever reported.
    # Kept by mistake, a dead token costs a vain send; deleted by mistake, live ones cost the whole table.
    return a.status in (401, 403) or a.rpc in ("UNAUTHENTICATED", "PERMISSION_DENIED")


def _fcm_apns(reason: str) -> Callable[[FcmAnswer], bool]:
    # FCM's bridge hands on APNs' own 410; a credential error beside it would make it doubtful.
    apns = frozenset(((410, reason),))
    return lambda a: (
        a.apns == apns
        and a.codes <= {"UNREGISTERED", "INVALID_ARGUMENT", "INTERNAL", "UNAVAILABLE"}
        and not _fcm_blames_us(a)
    )


def _fcm_accepts(a: FcmAnswer) -> bool:
    if a.status == 201:  # FCM's web push endpoint, which has no body to give
        return a.shape == "empty"
    # No body at all: the reporter kept only the status.
    named = not a.name.endswith("/messages/fake_message_id") if a.name else a.shape == "empty"
    return a.status == 200 and named


def _fcm_contradicts_itself(a: FcmAnswer) -> bool:
    return len(a.codes) > 1 or len(a.apns) > 1 or _fcm_unregistered(a)


_TOKEN_BLAMED = re.compile(r"message\.token|registration.?token|invalidregistration")


def _fcm_blames_token(a: FcmAnswer) -> bool:
    return _TOKEN_BLAMED.search(a.says) is not None


FCM_RULES: tuple[Rule[FcmAnswer], ...] = (
    # 200 means accepted by FCM, not seen by a device. validate_only answers with a fake id: nothing was sent.
    Rule("accepted", ACCEPTED, _fcm_accepts),
    Rule("dry_run", UNPROVEN, lambda a: a.status == 200 and a.name != ""),
    Rule("unexpected_body", UNPROVEN, lambda a: a.status in (200, 201)),
    # "No answer": timeout or lost connection; the push may have gone out.
    Rule("no_answer", TRANSIENT, lambda a: not a.status and a.shape in ("empty", "html", "text", "odd")),
    # "App instance was unregistered from FCM ... must be removed": uninstalled, expired, reset.
    Rule("apns_unregistered", PROVEN_DEAD, _fcm_apns("Unregistered")),
    Rule("apns_expired_token", PROVEN_DEAD, _fcm_apns("ExpiredToken")),
    Rule(
        "unregistered",
        PROVEN_DEAD,
        lambda a: (
            _fcm_unregistered(a)
            and not _fcm_blames_us(a)
            and all(status in (400, 410) for status, _ in a.apns)
            and len(a.apns) <= 1
        ),
    ),
    # Two codes in one answer contradict each other; neither is proof.
    Rule("contradictory_codes", UNPROVEN, _fcm_contradicts_itself),
    # "The authenticated sender ID is different": also every token's answer under a wrong service account.
    Rule("sender_id_mismatch", UNPROVEN, _fcm_says("SENDER_ID_MISMATCH")),
    # "APNs certificate or web push auth key was invalid or missing."
    Rule(
        "third_party_auth_error",
        UNPROVEN,
        lambda a: bool(a.codes & {"THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR"}),
    ),
    Rule("quota_exceeded", TRANSIENT, _fcm_says("QUOTA_EXCEEDED")),
    Rule("internal", TRANSIENT, _fcm_says("INTERNAL")),
    Rule("unavailable", TRANSIENT, _fcm_says("UNAVAILABLE")),
    # 400 is the trap: one code for a bad token, a bad payload and a bad parameter. None is proof of death.
    Rule("apns_bad_device_token", UNPROVEN, lambda a: any(r == "BadDeviceToken" for _, r in a.apns)),
    Rule("apns_error", UNPROVEN, lambda a: bool(a.apns)),
    Rule(
        "invalid_token",
        UNPROVEN,
        lambda a: (_fcm_invalid_argument(a) or a.status == 400) and _fcm_blames_token(a),
    ),
    Rule(
        "invalid_argument",
        UNPROVEN,
        lambda a: _fcm_invalid_argument(a) or a.rpc == "INVALID_ARGUMENT",
    ),
    # From here on FCM named no code it documents: judge by HTTP status.
    Rule("rate_limited", TRANSIENT, lambda a: a.status == 429),
    Rule("internal_server_error", TRANSIENT, lambda a: a.status == 500),
    Rule("bad_gateway", TRANSIENT, lambda a: a.status == 502),  # an HTML page of Google's front end
    Rule("service_unavailable", TRANSIENT, lambda a: a.status == 503),
    Rule("gateway_timeout", TRANSIENT, lambda a: a.status == 504),
    Rule("server_error", TRANSIENT, lambda a: a.status is not None and 500 <= a.status < 600),
    # 401 and 403 tell whose fault it is, whatever the code that nobody knows beside them.
    Rule("unauthenticated", UNPROVEN, lambda a: a.status == 401 or a.rpc == "UNAUTHENTICATED"),
    Rule("permission_denied", UNPROVEN, lambda a: a.status == 403 or a.rpc == "PERMISSION_DENIED"),
    # Without an HTTP status to presume from, "not found" may be said of anything.
    Rule("not_found_without_status", UNPROVEN, lambda a: not a.status and (a.bare or a.rpc == "NOT_FOUND")),
    Rule("unknown_error_code", UNPROVEN, lambda a: bool(a.codes) or (not a.status and a.rpc != "")),
    Rule("payload_too_large", UNPROVEN, lambda a: a.status == 413),
    Rule("bad_request", UNPROVEN, lambda a: a.status == 400),
    # v1 documents no 410; FCM's web push endpoint answers it, as text, for a subscription that is over.
    Rule(
        "gone",
        PROVEN_DEAD,
        lambda a: (
            a.status == 410 and (a.shape == "empty" or a.bare or bool(_SUBSCRIPTION_ENDED.fullmatch(a.says)))
        ),
    ),
    Rule("gone_contradicted", UNPROVEN, lambda a: a.status == 410),
    # Wrong project or path also answers NOT_FOUND: without any hint of it the token is presumed dead.
    Rule("not_found", PRESUMED_DEAD, lambda a: a.status == 404 and (a.shape == "empty" or a.bare)),
    Rule("not_found_contradicted", UNPROVEN, lambda a: a.status == 404),
    Rule("no_answer", TRANSIENT, lambda a: not a.status),
    Rule("unknown_status", UNPROVEN, lambda a: True),
)

# --- APNs HTTP/2 ----------------------------------------------------------------------------------------


def _snake(reason: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", reason).lower()


def _apns_says(reason: str) -> Callable[[ApnsAnswer], bool]:
    return lambda a: a.reason == reason


#: Apple's reasons that never count against the token, with what they say of the next try.
APNS_REASONS: dict[str, Evidence] = {
    # 400: malformed, or a live token of the other environment (sandbox and production mixed up: every one).
    "BadDeviceToken": UNPROVEN,
    # 400: a token of another app, or our apns-topic is wrong.
    "DeviceTokenNotForTopic": UNPROVEN,
    # 400: our request.
    "BadCollapseId": UNPROVEN,
    "BadDate": UNPROVEN,
    "BadExpirationDate": UNPROVEN,
    "BadMessageId": UNPROVEN,
    "BadPriority": UNPROVEN,
    "BadTopic": UNPROVEN,
    "DuplicateHeaders": UNPROVEN,
    "IdleTimeout": TRANSIENT,
    "InvalidPushType": UNPROVEN,
    "MissingDeviceToken": UNPROVEN,
    "MissingPushType": UNPROVEN,
    "MissingTopic": UNPROVEN,
    "PayloadEmpty": UNPROVEN,
    "TopicDisallowed": UNPROVEN,
    # 400, 403, 410: broadcasts, which go to a channel; no device was asked.
    "BadChannelId": UNPROVEN,
    "CannotCreateChannelConfig": UNPROVEN,
    "FeatureNotEnabled": UNPROVEN,
    "MissingChannelId": UNPROVEN,
    # 403: our credentials; every token gets the same answer.
    "BadCertificate": UNPROVEN,
    "BadCertificateEnvironment": UNPROVEN,
    "BadEnvironmentKeyIdInToken": UNPROVEN,  # Apple's page
    "BadEnvironmentKeyInToken": UNPROVEN,  # Apple's servers
    "ExpiredProviderToken": UNPROVEN,
    "Forbidden": UNPROVEN,
    "InvalidProviderToken": UNPROVEN,
    "MissingProviderToken": UNPROVEN,
    "UnrelatedKeyIdInToken": UNPROVEN,
    # 404: the path is wrong. The one 404 that must never prune.
    "BadPath": UNPROVEN,
    # 405, 413
    "MethodNotAllowed": UNPROVEN,
    "PayloadTooLarge": UNPROVEN,
    # 429: this device, or the JWT renewed too often.
    "TooManyProviderTokenUpdates": TRANSIENT,
    "TooManyRequests": TRANSIENT,
    # 500, 503
    "InternalServerError": TRANSIENT,
    "ServiceUnavailable": TRANSIENT,
    "Shutdown": TRANSIENT,
}

APNS_RULES: tuple[Rule[ApnsAnswer], ...] = (
    # APNs accepts without a body; "success" is what Elixir's Pigeon says in its place.
    Rule(
        "accepted",
        ACCEPTED,
        lambda a: (
            a.status == 200
            and ((a.shape in ("empty", "object") and a.reason == "") or a.reason in (SUCCESS, "success"))
        ),
    ),
    Rule("unexpected_body", UNPROVEN, lambda a: a.status == 200),
    # A channel that is gone is no device, whatever the status.
    Rule("channel_not_registered", UNPROVEN, _apns_says("ChannelNotRegistered")),
    # 410: "The device token is inactive for the specified topic." Irrecoverable, but a device may register
    # the same token again: `timestamp` tells since when it was dead.
    Rule("unregistered", PROVEN_DEAD, lambda a: a.reason == "Unregistered" and a.status in (410, None)),
    Rule("expired_token", PROVEN_DEAD, lambda a: a.reason == "ExpiredToken" and a.status in (410, None)),
    Rule(
        "gone",
        PROVEN_DEAD,
        lambda a: a.status == 410 and a.shape in ("empty", "object") and a.reason not in APNS_REASONS,
    ),
    Rule(
        "gone_contradicted",
        UNPROVEN,
        lambda a: a.status == 410 or a.reason in ("Unregistered", "ExpiredToken"),
    ),
    *(Rule(_snake(reason), evidence, _apns_says(reason)) for reason, evidence in APNS_REASONS.items()),
    # From here on the reason is unknown or missing: judge by HTTP status.
    Rule("no_answer", TRANSIENT, lambda a: not a.status and (a.shape == "text" or a.reason == "")),
    Rule("rate_limited", TRANSIENT, lambda a: a.status == 429),
    Rule("server_error", TRANSIENT, lambda a: a.status is not None and 500 <= a.status < 600),
    Rule("unknown_reason", UNPROVEN, lambda a: a.reason != ""),
    Rule("forbidden", UNPROVEN, lambda a: a.status == 403),
    Rule("not_found_contradicted", UNPROVEN, lambda a: a.status == 404),
    Rule("payload_too_large", UNPROVEN, lambda a: a.status == 413),
    Rule("bad_request", UNPROVEN, lambda a: a.status == 400),
    Rule("unknown_status", UNPROVEN, lambda a: True),
)
