"""What FCM's codes are called elsewhere, and its sentences that stand for one. Data, and how to look it up.

Libraries do not hand on FCM's body but a word of their own for it, and so do their reporters. One table maps
every such word to FCM's: an FcmError code or, where the library tells no more, a status of google.rpc.

Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode; google.rpc.Code; firebase-admin's
tables for Node 13, Python 7.7, Java 9, Go 4 and .NET 3, and those of Java 6 and Go 3; kreait/firebase-php 7.
"""

import re

#: FCM's own error codes (google.firebase.fcm.v1.FcmError.errorCode).
FCM_CODES = frozenset(
    {
        "APNS_AUTH_ERROR",  # the older name of THIRD_PARTY_AUTH_ERROR
        "INTERNAL",
        "INVALID_ARGUMENT",
        "QUOTA_EXCEEDED",
        "SENDER_ID_MISMATCH",
        "THIRD_PARTY_AUTH_ERROR",
        "UNAVAILABLE",
        "UNREGISTERED",
    }
)

#: google.rpc's statuses, with the HTTP status that each comes with where FCM gives it. NOT_FOUND has none
#: here: libraries say it of any 404, a proxy's included, so the word alone must not be taken for FCM's.
RPC_HTTP: dict[str, int | None] = {
    "ABORTED": None,
    "ALREADY_EXISTS": None,
    "CANCELLED": None,
    "CONFLICT": None,
    "DATA_LOSS": None,
    "DEADLINE_EXCEEDED": 504,
    "FAILED_PRECONDITION": 400,
    "INTERNAL": 500,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": None,
    "OUT_OF_RANGE": None,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
    "UNKNOWN": None,  # firebase-admin's word for what it could not read
}

# CamelCase without "Error": FCM's legacy API (and v1, in messages), .NET, PHP; with it: Python; with hyphens:
# Node, and Java and Go of old.
_OTHER_NAMES = {
    "UNREGISTERED": """
        NotRegistered Unregistered UnregisteredError
        registration-token-not-registered installation-id-not-registered
    """,
    "SENDER_ID_MISMATCH": """
        MismatchSenderId SenderIdMismatch SenderIdMismatchError mismatched-credential
    """,
    "THIRD_PARTY_AUTH_ERROR": """
        InvalidApnsCredential ThirdPartyAuthError third-party-auth-error invalid-apns-credentials
    """,
    "QUOTA_EXCEEDED": """
        DeviceMessageRateExceeded TopicsMessageRateExceeded QuotaExceeded QuotaExceededError
        message-rate-exceeded device-message-rate-exceeded topics-message-rate-exceeded
        topics-subscription-rate-exceeded
    """,
    "INVALID_ARGUMENT": """
        InvalidParameters InvalidRegistration MissingRegistration InvalidPackageName MessageTooBig
        InvalidDataKey InvalidTtl InvalidArgument InvalidArgumentError InvalidMessage
        invalid-argument invalid-recipient invalid-registration-token invalid-payload
        invalid-data-payload-key payload-size-limit-exceeded invalid-options invalid-package-name
        too-many-topics
    """,
    "INTERNAL": "InternalServerError Internal InternalError ServerError internal-error",
    "UNAVAILABLE": "Unavailable UnavailableError ServerUnavailable server-unavailable",
    "UNAUTHENTICATED": "AuthenticationError authentication-error invalid-credential",
    "UNKNOWN": "MessagingError unknown-error",
}


def _spellings() -> dict[str, str]:
    found = {name: name for name in (*RPC_HTTP, *FCM_CODES)}
    for rpc in RPC_HTTP:
        camel = rpc.title().replace("_", "")
        found |= {camel: rpc, f"{camel}Error": rpc}
    return found | {word: name for name, words in _OTHER_NAMES.items() for word in words.split()}


_SPELLINGS = _spellings()

#: Node (and Java and Go of old) say these of a NOT_FOUND without a code as well, be it a wrong project's.
SAID_OF_ANY_404 = ("registration-token-not-registered", "installation-id-not-registered")

# "messaging/..." is Node's; "firebase_admin.messaging.UnregisteredError", "Kreait\\Firebase\\..." are names.
# But other services have codes with dots in them, too ("Domain.NotRegistered").
_QUALIFIED = re.compile(
    r"(?:messaging/|app/|(?=[\w.\\]*(?:firebase|messaging))(?:[a-z_]\w*[.\\])+)?(?P<word>[a-z_][\w-]*)",
    re.IGNORECASE,
)
_LONGEST = 120


def canonical(word: str) -> str | None:
    """FCM's own name for a code, however a library spells it; None where the word is no such name."""
    if name := _SPELLINGS.get(word):
        return name
    qualified = _QUALIFIED.fullmatch(word) if len(word) < _LONGEST else None
    return _SPELLINGS.get(qualified["word"]) if qualified else None


# An allow-list: whatever else an error says may name a cause (a project, a path) in words of its own.
_NOT_FOUND = frozenset({"", "requested entity was not found", "not found", "not_found", "gone"})


def says_nothing_more(message: object) -> bool:
    """Whether an error's message says "not found" or "gone" and names nothing that was not found."""
    return isinstance(message, str) and message.rstrip(".").casefold() in _NOT_FOUND


_TOKEN = re.compile(r"\b(?:(?:registration|device|fcm) token|app instance|installation id)\b")
_DEAD = re.compile(
    r"\b(?:unregistered|unknown|expired|invalid|no longer|not (?:a )?(?:valid|registered|found))\b"
)
_KNOWN_WORDS = """
    a an and any anymore app be been by can details device does documentation error expired fcm firebase for
    found from has id installation instance invalid is it longer messages more no not of or previously
    provided reasons registered registration remove requested see send stop that the this to token unknown
    unregistered using valid variety was with
"""
_ABOUT_THE_TOKEN = frozenset(_KNOWN_WORDS.split())
_WORD = re.compile(r"[^\s.,;!]+")


def says_token_is_dead(message: object) -> bool:
    """Whether a "not found" speaks of the registration token, in any words, and of nothing else.

    Every word has to be known: one that is not may be the true cause (another project, a path, a sender).
    """
    if not isinstance(message, str) or len(message) > 400:
        return False
    said = message.casefold()
    return (
        _TOKEN.search(said) is not None
        and _DEAD.search(said) is not None
        and _ABOUT_THE_TOKEN.issuperset(_WORD.findall(said))
    )
