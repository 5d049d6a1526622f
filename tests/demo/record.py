"""Record the demo as the README shows it: `python tests/demo/record.py`, with the extra `docs`.

Runs `python -m worker.demo` in a terminal of its own and draws its last screen, on paper and at night.
Whatever is on the pictures was on that screen.
"""

import os
import pty
import re
import struct
import sys
from fcntl import ioctl
from io import StringIO
from itertools import groupby
from pathlib import Path
from termios import TIOCSWINSZ

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURES = Path(__file__).parents[2] / "docs" / "assets"
COLUMNS, LINES = 100, 100
COMMAND = [sys.executable, "-m", "worker.demo"]
SHOWN = ".venv/bin/python -m worker.demo"

#: Foreground, background and the eight colours, on paper and at night; the contrast is 4.5 and more.
THEMES = {
    "light": ("#1f2328", "#ffffff", "#1f2328 #b3261e #1a7f37 #7d4e00 #0550ae #8250df #0f6674 #57606a"),
    "dark": ("#e6edf3", "#0d1117", "#8b949e #ff7b72 #56d364 #e3b341 #79c0ff #d2a8ff #56d4dd #e6edf3"),
}

#: Rich's own, but for its fonts: these are the reader's, so the picture asks no network for anything.
SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
  aria-label="The demo in a terminal">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def run() -> pyte.Screen:
    """The screen that the demo leaves."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
        os.execve(COMMAND[0], COMMAND, environment)  # noqa: S606
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    try:
        while data := os.read(terminal, 1 << 16):
            stream.feed(data)
    except OSError:  # so Linux says that the other end is closed
        pass
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit("\n".join(line.rstrip() for line in screen.display))
    return screen


def style_of(char: pyte.screens.Char) -> Style:
    """How a character stands on the screen."""
    colour = None if char.fg == "default" else {"brown": "yellow"}.get(char.fg, char.fg)
    if colour and re.fullmatch("[0-9a-f]{6}", colour):
        colour = f"#{colour}"
    return Style(color=colour, bold=char.bold, italic=char.italics)


def text(screen: pyte.Screen) -> Text:
    """What is on a screen, with its colours."""
    shown = Text(f"$ {SHOWN}\n", style=Style(bold=True))
    lines = [line.rstrip() for line in screen.display]
    while not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):
        row = [screen.buffer[number][column] for column in range(len(line))]
        for style, chars in groupby(row, style_of):
            shown.append("".join(char.data for char in chars), style)
        shown.append("\n")
    shown.rstrip()
    return shown


def picture(shown: Text, name: str) -> str:
    """As SVG, in one of the colour schemes."""
    foreground, background, colours = THEMES[name]

    def rgb(colour: str) -> tuple[int, int, int]:
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
        return red, green, blue

    normal = [rgb(colour) for colour in colours.split()]
    theme = TerminalTheme(rgb(background), rgb(foreground), normal, normal)
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(shown)
    return console.export_svg(title="", theme=theme, code_format=SVG, unique_id=name)


def main() -> None:
    """Run the demo, and draw what it showed."""
    shown = text(run())
    for name in THEMES:
        lines = picture(shown, name).splitlines()
        (PICTURES / f"demo-{name}.svg").write_text("\n".join(line.rstrip() for line in lines) + "\n")


if __name__ == "__main__":
    main()
