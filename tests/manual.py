"""The README and the manual as tests read them: what is said is held against the code.

`python -m tests.manual DIRECTORY` writes every block of Python there as a module, for mypy to look at.
"""

import re
import sys
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


class Block(NamedTuple):
    """A fenced block: its language, the file that it is said to be (`title="app.py"`), and what is in it."""

    page: Path
    heading: str
    language: str
    title: str
    code: str

    def __str__(self) -> str:
        name = self.title or re.sub(r"\W+", "_", self.heading).strip("_").lower()
        return f"{self.page.stem}-{name}"


def sections(page: Path) -> Iterator[Section]:
    """A page's sections, in order; a # in an example is no heading."""
    heading, fenced = "", False
    lines: list[str] = []
    for line in page.read_text().splitlines():
        fenced ^= line.lstrip().startswith("```")
        if not fenced and (found := re.match(r"#+ (.+)", line)):
            yield Section(page, heading, "\n".join(lines))
            heading, lines = found[1], []
        else:
            lines.append(line)
    yield Section(page, heading, "\n".join(lines))


SECTIONS = [section for page in PAGES for section in sections(page)]
_BLOCK = re.compile(r'^( *)```(\w+)(?: title="(.+?)")?\n(.*?)^\1```$', re.DOTALL | re.MULTILINE)
#: Every fenced block of README and manual, in order.
BLOCKS = [
    Block(each.page, each.heading, language, title, re.sub(f"^{indent}", "", code, flags=re.MULTILINE))
    for each in SECTIONS
    for indent, language, title, code in _BLOCK.findall(each.text)
]


def section(heading: str) -> str:
    """The one section that is called so."""
    found = [each.text for each in SECTIONS if each.heading == heading]
    assert len(found) == 1, f"{len(found)} sections are called {heading!r}"
    return found[0]


def example(heading: str, language: str) -> str:
    """The first block of a language under a heading."""
    found = [block.code for block in BLOCKS if (block.heading, block.language) == (heading, language)]
    assert found, f"no {language} example under {heading!r}"
    return found[0]


def main(directory: Path) -> None:
    """Write the blocks of Python as modules."""
    directory.mkdir(parents=True)
    for block in BLOCKS:
        if block.language == "python":
            name = block.title or f"{block}.py".replace("-", "_")
            (directory / name).write_text(block.code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
