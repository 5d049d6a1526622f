"""`python -m worker.replay`: stopped jobs, why they stopped, and what to do with them."""

__all__: list[str] = []
