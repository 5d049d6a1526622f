"""What the README and the manual show is run, or held against the file that is.

Python runs in `tests/scheduler/test_examples.py` and `test_tutorial.py`, and `.ci/run` has mypy look at all
of it; TypeScript is compiled in `tests/typescript`.
"""

import configparser
import json
import re
import shlex
import subprocess
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from redis import Redis
from rq.cli.cli import main as rq

from tests.manual import BLOCKS, PAGES, ROOT, Block
from worker.demo import sandbox
from worker.logs.catalogue import EVENTS

LANGUAGES = {
    *("python", "ts", "sh", "sql", "redis", "json"),  # run, or compiled
    *("yaml", "dockerfile", "ini", "toml"),  # parts of files that teams take, or read
    *("text", "mermaid"),  # what somebody sees
}
#: Files that teams take, which CI holds against their schemas.
FILES = [
    ROOT / "Dockerfile",
    ROOT / "compose.yaml",
    *sorted((ROOT / "examples/kubernetes").iterdir()),
    *sorted((ROOT / "examples/systemd").iterdir()),
]


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_is_of_a_language_that_is_looked_at() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    assert sum(page.read_text().count("```") for page in PAGES) == 2 * len(BLOCKS)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_is_a_module_by_itself(block: Block) -> None:
    compile(block.code, str(block), "exec")


# --- shell ------------------------------------------------------------------------------------------------

#: Lines for RQ's own commands.
RQ_LINES = sorted({line for block in of("sh") for line in re.findall(r"\brq ([\w-]+ [^#`\n]*)", block.code)})


@pytest.mark.parametrize("block", of("sh"), ids=str)
def test_shell_can_be_parsed(block: Block) -> None:
    subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)  # noqa: S607


@pytest.mark.parametrize("line", RQ_LINES)
def test_rq_has_the_commands_and_options_that_are_shown(line: str) -> None:
    command, *words = shlex.split(line)
    helped = CliRunner().invoke(rq, [command, "--help"])
    assert helped.exit_code == 0
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[\w-]+", helped.output))


# --- SQL and Redis ----------------------------------------------------------------------------------------

#: What the statements take for granted: a token table elsewhere, and coordinators who log in by the API.
GIVEN = """
create schema app;
create table app.devices (token text, updated_at timestamptz, is_active boolean);
create schema auth;
create function auth.uid() returns uuid language sql as 'select null::uuid';
create table public.chapter_coordinators (user_id uuid, chapter_id uuid);
do $$ begin
  if not exists (select from pg_roles where rolname = 'authenticated') then create role authenticated; end if;
end $$;
"""


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection]:
    """A migrated database's owner, whose doings are taken back."""
    with psycopg.connect(database) as connection:
        connection.execute(GIVEN)
        yield connection
        connection.rollback()


@pytest.mark.parametrize("block", of("sql"), ids=str)
def test_sql_runs_after_the_migrations(owner: psycopg.Connection, block: Block) -> None:
    if "create role notiflog_login" not in block.code:
        owner.execute("create role notiflog_login login in role notiflog_worker")
    owner.execute(block.code.encode())


COMMANDS = [
    (str(block), line) for block in of("redis") for line in block.code.splitlines() if line.startswith("ACL")
]


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_redis_takes_the_users_that_are_shown(redis: Redis, where: str, line: str) -> None:
    _, _, user, *_ = words = line.split()
    try:
        assert redis.execute_command(*words)  # type: ignore[no-untyped-call]
    finally:
        redis.acl_deluser(user)


# --- data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_json_can_be_read(block: Block) -> None:
    json.loads(block.code)


@pytest.mark.parametrize(
    "line", re.findall(r'^\{"ts".*', "\n".join(block.code for block in of("json")), re.M)
)
def test_a_log_line_that_is_shown_has_the_fields_of_its_event(line: str) -> None:
    shown = json.loads(line)
    assert set(shown) == {"ts", "level", "event", *EVENTS[shown["event"]].fields.split()}


# --- files that teams take --------------------------------------------------------------------------------


@pytest.mark.parametrize("block", of("yaml", "dockerfile", "ini"), ids=str)
def test_a_fragment_is_a_part_of_a_file_that_is_checked(block: Block) -> None:
    fragment = textwrap.dedent(block.code).strip()
    indented = (textwrap.indent(fragment, " " * spaces) for spaces in range(0, 24, 2))
    texts = [path.read_text() for path in FILES]
    assert any(f"\n{each}\n" in text for each in indented for text in texts)


@pytest.mark.parametrize("block", of("toml"), ids=str)
def test_toml_starts_what_the_image_has(block: Block) -> None:
    shown = tomllib.loads(block.code)
    commands = {*shown["processes"].values(), shown["deploy"]["release_command"]}
    assert commands == {"rq worker notiflog", "rq cron notiflog.cron", "notiflog migrate --wait 60"}
    assert (ROOT / shown["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".service"], ids=lambda path: path.name
)
def test_a_unit_can_be_read_and_starts_again_whatever_the_status(path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(path)
    assert unit["Service"]["Restart"] == "always"


def test_the_manifests_name_the_image_of_this_release() -> None:
    manifests = "".join(path.read_text() for path in FILES if path.parent.name == "kubernetes")
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(re.findall(r"image: (.+)", manifests)) == {f"notiflog:{release}"}


def test_the_sample_app_is_the_one_of_the_tests() -> None:
    def words(text: str) -> list[str]:
        return re.sub(r"--.*|if not exists ", "", text).split()

    app = words((ROOT / "examples/app.sql").read_text())
    (tutorial,) = (block.code for block in BLOCKS if block.title == "app.py")
    assert app == words(sandbox.APP_TABLES)
    assert app == words(tutorial.split('"""')[1])
