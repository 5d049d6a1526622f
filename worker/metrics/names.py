"""Every metric there is: its name, what it counts and how. `docs/reference/metrics.md` has the same list."""

from typing import Literal, NamedTuple


class Family(NamedTuple):
    """One metric, as Prometheus knows it."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    labels: tuple[str, ...]
    help: str


FAMILIES = (
    # Counted by the workers, see `record.counters`.
    Family("notiflog_outcomes_total", "counter", ("channel", "status"), "Rows recorded."),
    Family("notiflog_duplicates_total", "counter", ("conflicting",), "Events that were on record already."),
    Family("notiflog_rejected_events_total", "counter", (), "Events that could not be recorded."),
    Family(
        "notiflog_send_results_total",
        "counter",
        ("channel", "reason", "evidence"),
        "Answers of the providers.",
    ),
    Family("notiflog_tokens_total", "counter", ("channel", "action"), "Tokens with a death notice."),
    Family(
        "notiflog_database_faults_total", "counter", ("class",), "Faults of PostgreSQL, by SQLSTATE's class."
    ),
    Family("notiflog_turn_seconds", "histogram", (), "From claiming jobs to the commit of their rows."),
    Family("notiflog_lag_seconds", "histogram", (), "From attempted_at to the commit of the row."),
    # As it is now.
    Family("notiflog_up", "gauge", ("server",), "Whether a server answers."),
    Family("notiflog_jobs", "gauge", ("queue", "state"), "Jobs that stand somewhere."),
    Family("notiflog_oldest_job_seconds", "gauge", ("queue",), "How long the oldest job has waited."),
    Family("notiflog_stopped_jobs", "gauge", ("queue", "reason"), "Jobs that failed or were set aside."),
    Family("notiflog_lost_jobs", "gauge", ("queue",), "Jobs that stand in no list."),
    Family("notiflog_workers", "gauge", ("queue", "state"), "Workers that listen."),
    Family("notiflog_suspended", "gauge", (), "Whether `rq suspend` holds all workers."),
    Family("notiflog_brake_on", "gauge", ("channel", "source"), "Whether tokens are kept."),
    Family("notiflog_outstanding_prompts", "gauge", (), "Reserved an hour ago or longer, never reported."),
    Family("notiflog_outstanding_oldest_seconds", "gauge", (), "How long ago the oldest was reserved."),
    Family("notiflog_migrations_pending", "gauge", (), "Migrations that are not applied."),
)
