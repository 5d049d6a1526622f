"""All commands by name: `notiflog check`, or `python -m notiflog check`."""

import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import click

from . import NAME
from .command import run, say

#: Every command, with what it is for; each is a module of this name with a `main(arguments)`.
COMMANDS = {
    "migrate": "Apply the migrations that are pending, or roll the last one back.",
    "check": "One look at everything: what is wrong, and what to do about it.",
    "probe": "Is a worker of this host alive? For a container.",
    "report": "What became of the prompts.",
    "metrics": "Serve Prometheus the numbers of all workers, and how the servers are.",
    "replay": "List stopped jobs with why, and put them back into the queue.",
    "enqueue": "Check the events of a file and put them on the queue.",
    "sweep": "Check the app's FCM tokens by dry runs and prune the dead ones.",
    "retain": "Delete recorded outcomes that are old.",
    "forget": "Erase a peer mentor, from PostgreSQL and from jobs in Redis.",
    "events": "The wire contract as data.",
    "demo": "See the whole thing run, on servers of its own.",
}


class _Commands(click.Group):
    """Loads a command's module when it is run: no other's are needed then."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _pass_on(cmd_name) if cmd_name in COMMANDS else None


def _pass_on(name: str) -> click.Command:
    @click.command(
        name,
        short_help=COMMANDS[name],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> Any:
        door = import_module(f".{name}", __package__)
        if hasattr(door, "__path__"):
            door = import_module(f".{name}.__main__", __package__)
        return door.main(arguments)

    return command


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        try:
            say(f"notiflog {metadata.version('notiflog')}")
        except metadata.PackageNotFoundError:
            say("notiflog, from a checkout that is not installed")
        context.exit()


@click.group(
    NAME,
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each has a --help of its own.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="which release"
)
@click.pass_context
def _commands(context: click.Context) -> None:
    """Keep the record of your push notifications."""
    if context.invoked_subcommand is None:
        say(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that is named, or list all; returns the exit status."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    return run(_commands, f"python -m {NAME}" if as_module else "notiflog", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
