"""`python -m worker.forget`: erase a peer mentor, from PostgreSQL and from jobs in Redis."""

__all__: list[str] = []
