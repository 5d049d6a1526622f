"""Do what the Dockerfile's first stage does, without Docker: `python -m tests.container DIRECTORY`.

Its COPY and RUN lines, in a directory that has nothing but what they bring. What the second stage starts must
then be there. Not tested so: the base image and its user.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Where the image has the virtual environment.
OPT = "/opt/notiflog"


def instructions() -> list[tuple[str, str]]:
    """What the Dockerfile says, line for line, as (word, rest)."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines) if word]


def main(directory: Path) -> None:
    """Build it, and start what it starts."""
    work, opt = directory / "build", directory / "opt"
    work.mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PIP_QUIET": "1"}
    said = instructions()
    (_, second) = (number for number, (word, _) in enumerate(said) if word == "FROM")
    for word, rest in said[:second]:
        if word == "COPY":
            *sources, to = rest.split()
            for source in map(ROOT.joinpath, sources):
                if source.is_dir():
                    shutil.copytree(source, work / to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, work / to)
        elif word == "RUN":
            sys.stdout.write(f"$ {rest}\n")
            sys.stdout.flush()
            subprocess.run(
                ["bash", "-euc", rest.replace(OPT, str(opt))],  # noqa: S607
                cwd=work,
                env=environment,
                check=True,
            )
    started = dict(said[second:])
    compose = (ROOT / "compose.yaml").read_text()
    commands = [
        *(json.loads(command) for command in (started["CMD"], started["HEALTHCHECK"].partition("CMD ")[2])),
        *(line.split() for line in re.findall(r"^    command: ((?:rq|notiflog) .+)", compose, re.MULTILINE)),
    ]
    for program, command, *_ in commands:
        asked = [opt / "bin" / program, command, "--help"]
        subprocess.run(asked, env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
