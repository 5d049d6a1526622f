"""The draining worker: `RQ_WORKER_CLASS=worker.drain.DrainWorker rq worker notiflog`."""

from .worker import DrainWorker

__all__ = ["DrainWorker"]
