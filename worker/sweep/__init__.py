"""`python -m worker.sweep`, and its periodic job: find device tokens that died in silence."""

#: The modules that others use.
__all__ = ["passes"]
