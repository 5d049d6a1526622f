"""`python -m worker.retain`: delete rows of the log that are older than they need to be kept."""

#: The modules that others use.
__all__ = ["expiry"]
