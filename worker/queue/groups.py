"""Stopped jobs by what stopped them: one cause is told once, however many jobs have it. Pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from .stopped import StoppedJob

#: Ids of a group's jobs that are named.
NAMED = 3
# Whoever fills Redis with jobs of as many causes fills no memory here: what is beyond is only counted.
_GROUPS, _PROBLEMS = 1000, 100

_LINE = re.compile(r"\[\d+\] (?P<problem>\$.*)")
_MORE = re.compile(r"and (?P<more>\d+) more: ")
_INDEX = re.compile(r"\[\d+\]")
# What is missing may be a different one for each event, and is one cause all the same.
_WHICH = re.compile(r"(?<=there is no such )(user|chapter|scenario rule): .*")


@dataclass
class Group:
    """Jobs that stopped for one cause."""

    #: The first of them.
    sample: StoppedJob
    jobs: int = 0
    #: That these jobs carry, as far as is known.
    events: int = 0
    #: Between the first and the last moment, where anybody wrote one down.
    since: tuple[datetime, datetime] | None = None
    #: NAMED of the jobs' ids.
    ids: list[str] = field(default_factory=list)
    #: What is wrong with how many of the refused events, the path without numbers.
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, job: StoppedJob) -> None:
        """Count a job in."""
        self.jobs += 1
        self.events += job.events or 0
        if job.since:
            first, last = self.since or (job.since, job.since)
            self.since = min(first, job.since), max(last, job.since)
        if len(self.ids) < NAMED:
            self.ids.append(job.job_id)
        for problem, count in _problems(job).items():
            known = problem in self.problems or len(self.problems) < _PROBLEMS
            self.problems[problem if known else "others"] += count

    def period(self, moment: Callable[[datetime], str]) -> str:
        """From the first of its moments to the last, as `moment` writes them; "" where there is none."""
        if not self.since:
            return ""
        first, last = map(moment, self.since)
        return first if first == last else f"{first} to {last}"

    def complaints(self, most: int) -> list[str]:
        """What is wrong with its events, a line each: `most` of a single job's, or its most frequent ones."""
        if self.jobs == 1:
            lines, rest = list(self.sample.rejected[:most]), len(self.sample.rejected) - most
        else:
            worst = self.problems.most_common(most)
            lines = [f"{n:,} event{'' if n == 1 else 's'}: {problem}" for problem, n in worst]
            rest = self.problems.total() - sum([n for _, n in worst])
        return [*lines, f"and {rest:,} more"] if rest > 0 else lines

    def named(self, longest: int) -> str:
        """Some of its jobs, and how many more; `longest`: characters of an id."""
        more = f" and {self.jobs - len(self.ids):,} more" if self.jobs > len(self.ids) else ""
        return f"{', '.join([job_id[:longest] for job_id in self.ids])}{more}"


def group(jobs: Iterable[StoppedJob]) -> list[Group]:
    """The groups, in the order of their first jobs. Where there are too many, some jobs are in none."""
    groups: dict[tuple[str, object], Group] = {}
    for job in jobs:
        key = job.reason, _kinds(job) or job.why
        if key not in groups:
            if len(groups) == _GROUPS:
                continue
            groups[key] = Group(job)
        groups[key].add(job)
    return list(groups.values())


def _problems(job: StoppedJob) -> Counter[str]:
    problems: Counter[str] = Counter()
    for line in job.rejected:
        if found := _LINE.fullmatch(line):
            problems[_INDEX.sub("[]", found["problem"])] += 1
        elif more := _MORE.match(line):
            problems["others"] += int(more["more"])
    return problems


def _kinds(job: StoppedJob) -> frozenset[str]:
    return frozenset(_WHICH.sub(r"\1", problem) for problem in _problems(job))
