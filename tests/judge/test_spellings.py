"""What other libraries make of the same answers, and the words and sentences that stand for a code."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from tests.judge.cases import CASES, Case
from worker.judge.classify import classify
from worker.judge.spellings import canonical

FROM_LIBRARIES = [case for case in CASES if case.library]
#: What libraries call a token that is dead.
DEAD_TO_THEM = {
    "UnregisteredError",
    "UNREGISTERED",
    "Unregistered",
    "registration-token-not-registered",
    "NotFound",
}


def test_sixty_answers_come_from_the_test_data_of_six_libraries() -> None:
    assert len(FROM_LIBRARIES) >= 60
    assert len({case.library for case in FROM_LIBRARIES}) == 6


@pytest.mark.parametrize("case", FROM_LIBRARIES, ids=lambda case: case.why)
def test_where_we_differ_from_a_library_the_case_says_why(case: Case) -> None:
    dead_to_us = classify(case.channel, case.status, case.body).prunes

    assert (case.differs is not None) == (dead_to_us != (case.says in DEAD_TO_THEM))


#: Every code that a library knows: Node 13, .NET 3, Python 7.7, PHP 7, and FCM's legacy API.
NODE = (
    "invalid-argument invalid-recipient invalid-payload invalid-data-payload-key payload-size-limit-exceeded "
    "invalid-options invalid-registration-token registration-token-not-registered "
    "installation-id-not-registered mismatched-credential invalid-package-name device-message-rate-exceeded "
    "topics-message-rate-exceeded topics-subscription-rate-exceeded message-rate-exceeded "
    "third-party-auth-error too-many-topics authentication-error server-unavailable internal-error "
    "unknown-error"
)
RPC = (
    "InvalidArgument FailedPrecondition OutOfRange Unauthenticated PermissionDenied NotFound Conflict "
    "Aborted AlreadyExists ResourceExhausted Cancelled DataLoss Unknown Internal Unavailable DeadlineExceeded"
)
LEGACY = (
    "InvalidParameters MismatchSenderId Unavailable InternalServerError InvalidRegistration NotRegistered "
    "InvalidPackageName MessageTooBig InvalidDataKey InvalidTtl DeviceMessageRateExceeded "
    "TopicsMessageRateExceeded InvalidApnsCredential MissingRegistration"
)
DOTNET = (
    "ThirdPartyAuthError InvalidArgument Internal QuotaExceeded SenderIdMismatch Unavailable Unregistered"
)
PYTHON = "UnregisteredError SenderIdMismatchError QuotaExceededError ThirdPartyAuthError"
PHP = "AuthenticationError InvalidMessage NotFound QuotaExceeded ServerError ServerUnavailable MessagingError"
KNOWN_ELSEWHERE = [
    *(f"messaging/{word}" for word in NODE.split()),
    *f"{NODE} {RPC} {LEGACY} {DOTNET} {PYTHON}".split(),
    *(f"{word}Error" for word in RPC.split()),
    *(f"Kreait\\Firebase\\Exception\\Messaging\\{word}" for word in PHP.split()),
]


@pytest.mark.parametrize("word", dict.fromkeys(KNOWN_ELSEWHERE))
def test_a_cause_that_a_library_names_is_never_no_answer(word: str) -> None:
    bodies: list[Any] = [word, {"code": word}, {"error": {"code": word}}, {"error": {"errorCode": word}}]

    assert "no_answer" not in {classify("fcm", None, body).reason for body in bodies}


@pytest.mark.parametrize("word", dict.fromkeys(KNOWN_ELSEWHERE))
def test_a_librarys_word_proves_no_more_than_fcms_own(word: str) -> None:
    name = canonical(word)
    assert name is not None
    for status in (None, 400, 401, 403, 404, 410, 500):
        assert not classify("fcm", status, word).prunes or classify("fcm", status, name).prunes


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("phrase", [status.phrase for status in HTTPStatus])
def test_a_phrase_of_https_proves_nothing(status: int, phrase: str) -> None:
    said = (phrase, phrase.lower(), phrase.upper(), f"{status} {phrase}", json.dumps(phrase), f" {phrase}.\n")

    assert not any(classify("fcm", status, text).prunes for text in said)


SENTENCE = "the registration token is not registered"


@pytest.mark.parametrize("other", ["project", "sender", "path", "permission", "topic", "api", "7", "'x'"])
@pytest.mark.parametrize("place", range(7))
def test_a_sentence_that_names_anything_but_the_token_is_no_proof(other: str, place: int) -> None:
    words = SENTENCE.split()
    words.insert(place, other)
    body = {"error": {"code": 404, "message": " ".join(words), "status": "NOT_FOUND"}}

    assert not classify("fcm", 404, body).prunes
