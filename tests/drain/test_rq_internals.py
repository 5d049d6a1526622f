"""The draining worker leans on names of RQ's that RQ does not promise: say loudly when they change."""

import inspect
from typing import Any

import pytest
import rq
from redis.retry import Retry
from rq import (
    executions,
    intermediate_queue,
    job,
    job_lifecycle,
    queue,
    registry,
    results,
    scheduler,
    serializers,
    suspension,
    utils,
)
from rq.worker import SimpleWorker
from rq.worker.base import BaseWorker

TESTED = "3.0."


def test_the_version_is_the_one_all_this_was_tested_with() -> None:
    assert rq.__version__.startswith(TESTED), (
        f"RQ is {rq.__version__}, but drain/ and its scripts were tested with {TESTED}x: "
        "read what changed in rq/worker/base.py and rq/job.py, run these tests, then raise TESTED"
    )


#: What `worker` overrides, calls or reads, with the arguments it relies on.
NAMES: list[tuple[Any, str, tuple[str, ...]]] = [
    (BaseWorker, "work", ("burst", "max_jobs", "max_idle_time", "with_scheduler")),
    (BaseWorker, "bootstrap", ("logging_level", "date_format", "log_format")),
    (BaseWorker, "teardown", ()),
    (BaseWorker, "check_for_suspension", ("burst",)),
    (BaseWorker, "run_maintenance_tasks", ()),
    (BaseWorker, "dequeue_job_and_maintain_ttl", ("timeout", "max_idle_time")),
    (BaseWorker, "request_force_stop", ("signum", "frame")),
    (BaseWorker, "_shutdown", ()),
    (BaseWorker, "heartbeat", ("pipeline",)),
    (BaseWorker, "set_state", ("state",)),
    (BaseWorker, "perform_job", ("job", "queue", "execution")),
    (BaseWorker, "handle_exception", ("job",)),
    (BaseWorker, "_finalize_success", ("job", "queue", "execution", "return_value")),
    (BaseWorker, "_finalize_failure", ("job", "queue", "execution", "exc_info")),
    (BaseWorker, "should_run_maintenance_tasks", ()),
    (BaseWorker, "executions_key", ()),
    (BaseWorker, "_start_scheduler", ("burst", "logging_level", "date_format", "log_format")),
    (BaseWorker, "handle_payload", ("message",)),
    (SimpleWorker, "execute_job", ("job", "queue")),
    (scheduler.RQScheduler, "__init__", ("queues", "connection", "logging_level", "serializer")),
    (scheduler.RQScheduler, "acquire_locks", ()),
    (scheduler.RQScheduler, "register_birth", ()),
    (scheduler.RQScheduler, "enqueue_scheduled_jobs", ()),
    (scheduler.RQScheduler, "release_locks", ()),
    (scheduler.RQScheduler, "register_death", ()),
    (scheduler.RQScheduler, "work", ()),
    (registry.ReadyJobRegistry, "cleanup", ()),
    (Retry, "call_with_retry", ("do", "fail", "is_retryable", "with_failure_count")),
    (job.Job, "restore", ("raw_data",)),
    (job.Job, "fetch", ("id", "connection", "serializer")),
    (job.Job, "func", ()),
    (job, "validate_job_id", ("job_id",)),
    (queue.Queue, "fetch_job", ("job_id",)),
    (queue.Queue, "intermediate_queue_key", ()),
    (queue.Queue, "release_maintenance_lock", ()),
    (job_lifecycle, "call_exception_handlers", ("handlers", "job")),
    (executions.Execution, "__init__", ("id", "job_id", "connection", "worker_name")),
    (executions.Execution, "save", ("ttl", "pipeline")),
    (executions.ExecutionRegistry, "add", ("execution", "ttl", "pipeline")),
    (job.Job, "execution_registry", ()),
    (BaseWorker, "get_heartbeat_ttl", ("job",)),
    (suspension, "is_suspended", ("connection",)),
    (serializers, "resolve_serializer", ("serializer",)),
    (utils, "utcformat", ("dt",)),
    (utils, "now", ()),
]


@pytest.mark.parametrize(
    ("owner", "name", "arguments"), NAMES, ids=lambda value: getattr(value, "__name__", None)
)
def test_it_has(owner: Any, name: str, arguments: tuple[str, ...]) -> None:
    found = getattr(owner, name)
    if arguments:
        missing = set(arguments) - inspect.signature(found).parameters.keys()
        assert not missing, f"{name} takes no {missing} any more"


@pytest.mark.parametrize(
    "attribute",
    [
        "_exc_handlers",
        "_state",
        "_stop_requested",
        "_shutdown_requested_date",
        "last_cleaned_at",
        "worker_ttl",
        "default_result_ttl",
    ],
)
def test_a_worker_sets(attribute: str) -> None:
    assert f"self.{attribute}" in inspect.getsource(BaseWorker)


@pytest.mark.parametrize(
    ("owner", "attribute", "template"),
    [
        (registry.StartedJobRegistry, "key_template", "rq:wip:{0}"),
        (registry.FinishedJobRegistry, "key_template", "rq:finished:{0}"),
        (executions.ExecutionRegistry, "key_template", "rq:executions:{0}"),
        (executions, "WORKER_EXECUTIONS_KEY_TEMPLATE", "rq:worker:{0}:executions"),
        (job.Job, "redis_job_namespace_prefix", "rq:job:"),
        (queue.Queue, "redis_queue_namespace_prefix", "rq:queue:"),
        (BaseWorker, "redis_worker_namespace_prefix", "rq:worker:"),
    ],
)
def test_keys_the_scripts_write_are_named(owner: Any, attribute: str, template: str) -> None:
    assert getattr(owner, attribute) == template


def test_a_results_key_and_type_are_what_the_scripts_write() -> None:
    assert (results.Result.get_key("id"), results.Result.Type.SUCCESSFUL.value) == ("rq:results:id", 1)


def test_the_intermediate_queue_is_where_it_was() -> None:
    key = intermediate_queue.IntermediateQueue.get_intermediate_queue_key("rq:queue:name")
    assert key == "rq:queue:name:intermediate"


def test_a_job_has_the_states_the_scripts_write() -> None:
    assert {"queued", "started", "finished"} <= {status.value for status in job.JobStatus}
