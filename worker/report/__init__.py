"""`python -m worker.report`: what became of the prompts, at a look."""

__all__: list[str] = []
