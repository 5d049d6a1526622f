"""Words that the findings share."""


def count(n: int, what: str) -> str:
    """Say how many: "no jobs", "1 job", "1,200 jobs"."""
    return f"{f'{n:,}' if n else 'no'} {what}{'' if n == 1 else 's'}"
