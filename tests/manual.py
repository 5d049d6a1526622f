"""The README and the manual as tests read them: what is said is held against the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
#: README and manual; who reads the project to change it has CONTRIBUTING besides.
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
EVERY_PAGE = [*PAGES, ROOT / "CONTRIBUTING.md"]
#: All of it.
TEXT = "\n".join(page.read_text() for page in EVERY_PAGE)


class Section(NamedTuple):
    """What stands between a heading and the next one."""

    page: Path
    heading: str
    text: str


def sections(page: Path) -> Iterator[Section]:
    """A page's sections, in order; a # in an example is no heading."""
    heading, fenced = "", False
    lines: list[str] = []
    for line in page.read_text().splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (found := re.match(r"#+ (.+)", line)):
            yield Section(page, heading, "\n".join(lines))
            heading, lines = found[1], []
        else:
            lines.append(line)
    yield Section(page, heading, "\n".join(lines))


SECTIONS = [section for page in PAGES for section in sections(page)]


def section(heading: str) -> str:
    """The one section that is called so."""
    found = [each.text for each in SECTIONS if each.heading == heading]
    assert len(found) == 1, f"{len(found)} sections are called {heading!r}"
    return found[0]


def example(heading: str, language: str) -> str:
    """The first block of a language under a heading."""
    found = re.search(rf"```{language}\n(.*?)```", section(heading), re.DOTALL)
    assert found, f"no {language} example under {heading!r}"
    return found[1]
