"""`python -m worker.metrics`: the numbers of all workers and the state of their servers, for Prometheus."""

__all__: list[str] = []
