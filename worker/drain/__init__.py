"""The draining worker: `RQ_WORKER_CLASS=worker.drain.DrainWorker rq worker notiflog`."""

import os

from ..extras import extra
from ..servers.names import misspelt_worker
from ..servers.redis import BadAddress, address

with extra("worker"):
    from .worker import DrainWorker

__all__ = ["DrainWorker"]

if problem := misspelt_worker(os.environ):
    raise SystemExit(problem)
try:
    # Every command of RQ's loads the worker class before it reads the address, some of them nothing else of
    # ours. Of a wrong one RQ shows the parser's text, which quotes a part of the password.
    address(os.environ)
except BadAddress as error:
    raise SystemExit(str(error)) from None
