"""The one list of what can be logged."""

from typing import NamedTuple


class Event(NamedTuple):
    """One kind of line."""

    meaning: str
    #: Names, separated by spaces. `[name]`: not always there. `name_*`: every name that starts so.
    fields: str


#: Every event, by name. Adding a line to the log starts here; the manual shows the same list.
EVENTS = {
    "outcomes_recorded": Event(
        "the summary of one job or turn: its events by outcome, by reason, and what became of their tokens",
        "jobs events delivered failed skipped retrying duplicates conflicting waiting rejected pruned kept "
        "withheld refused absent failed_by skipped_by ms",
    ),
    "send_failed": Event(
        "one send result that was not accepted", "channel http_status reason evidence token"
    ),
    "conflicting_duplicate": Event(
        "an event whose key is already recorded with another status; the first stays", "key stored reported"
    ),
    "job_failed": Event(
        "a job failed, for one of our reasons (`problem`) or another (`exc`, `frames`)",
        "job exc problem frames",
    ),
    "brake_on": Event(
        "most recent answers of a channel say that the device is gone: its tokens are kept",
        "channel source dead answers minutes problem",
    ),
    "brake_blind": Event(
        "Redis does not tell what other workers saw: the tokens of this turn are kept", "channels problem"
    ),
    "guard_off": Event(
        "NOTIFLOG_TOKEN_REGISTERED_COLUMN is empty: re-registered tokens cannot be told apart", "stale"
    ),
    "sent_in_the_future": Event(
        "dead tokens are kept, because their send is dated ahead of PostgreSQL's clock", "tokens remedy"
    ),
    "guard_weak": Event("registration times say too little of when a token was registered", "problem remedy"),
    "prune_limited": Event(
        "more dead tokens in a minute than NOTIFLOG_PRUNE_LIMIT allows: the others stay for now",
        "channel tokens limit remedy",
    ),
    "prune_refused": Event(
        "PostgreSQL does not have dead tokens pruned: they stay, the rows are recorded",
        "table tokens sqlstate culprit remedy",
    ),
    "token_dead": Event(
        "FCM says of a token that the sweep checked: no such device", "reason evidence token"
    ),
    "sweep_paused": Event(
        "FCM gave no verdict on most of a page; the sweep goes on from there later", "problem"
    ),
    "tokens_swept": Event(
        "the sweep is through the token table: what it found; counts of nothing are left out",
        "[tokens] [fcm] [fid] [apns] [unknown] [alive] [dead] [no_verdict] [no_verdict_*] [pruned] [kept] "
        "[withheld] [refused] [older_than_30_days] [older_than_270_days] [age_unknown]",
    ),
    "outcomes_expired": Event("recorded outcomes older than NOTIFLOG_RETAIN are deleted", "rows days"),
    "retention_refused": Event(
        "NOTIFLOG_RETAIN is set, but the worker's role may not delete: nothing is", "problem"
    ),
    "rows_waiting": Event(
        "another session's lock keeps some rows from being recorded: their jobs are tried again",
        "table rows holders",
    ),
    "database_unavailable": Event(
        "a passing PostgreSQL fault; the job waits and tries again", "problem [retry_in]"
    ),
    "setting_passed_over": Event("a setting of other clients that says nothing here", "problem remedy"),
    "database_not_verified": Event("anybody could pose as the PostgreSQL server", "problem remedy"),
    "redis_unavailable": Event(
        "no connection to Redis; the worker waits and tries again", "problem retry_in"
    ),
    "redis_not_durable": Event("Redis does not keep its data over a restart", "remedy"),
    "key_renamed": Event(
        "a key in Redis held another type of value than it should, and stands under this name now", "key"
    ),
    "job_quarantined": Event("a job that RQ cannot read, set aside in a list of its own", "job problem"),
    "job_renamed": Event("a job had an id that RQ 3 no longer allows, and goes on under another", "job was"),
    "jobs_taken_over": Event("a worker went silent, its jobs are back in the queue", "jobs"),
    "jobs_given_up": Event("jobs taken over too often fail: they may be what ends the workers", "jobs"),
    "jobs_released": Event("the worker stops, its unfinished jobs are back in the queue", "jobs"),
    "worker_stopped": Event("the worker refuses to start, or ends: why, and what to do", "problem"),
    "two_forms": Event(
        "the stock worker's own lines have RQ's form, those of its jobs have this one; said once", "remedy"
    ),
    "lines_lost": Event(
        "nobody read standard output for a while, or it could not be written: so many lines are missing",
        "lines",
    ),
    "notices_lost": Event(
        "notices for the function of NOTIFLOG_HOOK found no room, or Redis was away", "notices remedy"
    ),
    "sentry_off": Event("SENTRY_DSN is set, but nothing is sent there", "problem"),
    "rq": Event("a line of RQ's own", "logger message [exc] [problem] [frames]"),
    "library": Event("a warning of another library", "logger message [exc] [problem] [frames]"),
}
