"""What is judged, and how often hypothesis tries."""

from hypothesis import settings

quick = settings(max_examples=150, deadline=None, derandomize=True)
