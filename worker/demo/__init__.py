"""`python -m worker.demo`: the whole thing on throw-away servers, with a made-up app."""

#: The modules that others use.
__all__ = ["sample", "sandbox"]
