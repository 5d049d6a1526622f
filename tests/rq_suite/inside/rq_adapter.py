"""A plugin of pytest's: RQ's tests find the draining worker where they look for RQ's.

It lifts what has nothing to do with RQ: jobs call any function, and there is no PostgreSQL. So each job is
claimed by itself and takes RQ's ordinary path.
"""

import rq
import rq.job
import rq.serializers
import rq.worker

from worker.drain import strict, worker
from worker.drain.claimed import Turn
from worker.drain.claims import Claims
from worker.drain.trusted import TrustedQueue


class AnyQueue(TrustedQueue):
    """RQ's queue, with what the draining worker asks of one."""

    job_class = rq.job.Job


class DrainWorker(worker.DrainWorker):
    """The draining worker, of any jobs."""

    job_class = rq.job.Job
    queue_class = AnyQueue


def claim_one(claims: Claims, most: int) -> Turn:
    """Claim one job, for RQ's ordinary path."""
    found = claim(claims, 1)
    return found._replace(ordinary=bool(found.jobs))


claim = Claims.claim
Claims.claim = claim_one  # type: ignore[method-assign, assignment]
worker.TrustedJob, worker.TrustedQueue = rq.job.Job, AnyQueue  # type: ignore[attr-defined]
strict.plain_serializer = rq.serializers.resolve_serializer
strict.refuse_other_classes = lambda options: None
strict.refuse_to_lose = lambda connection: None
strict.limit_memory = lambda: None

rq.Worker = rq.worker.Worker = DrainWorker
