"""`python -m worker.check`: one look that tells what is wrong, and what to do about it."""

__all__: list[str] = []
