"""What each answer proves about its token, and what became of the prompt. Pure: payloads in, outcomes out."""

#: The modules that others use.
__all__ = ["answers", "batch", "classify", "rules"]
