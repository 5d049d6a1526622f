"""What `python -m worker.migrate` says before it meets a database, and the rules its files keep."""

import re
from pathlib import Path

import pytest

from worker import migrate
from worker.servers.migrations import Migration, migrations

SECRET = "S3CRET"


@pytest.fixture(params=migrations(), ids=lambda migration: migration.name)
def migration(request: pytest.FixtureRequest) -> Migration:
    migration: Migration = request.param
    return migration


def code_of(*arguments: str) -> object:
    with pytest.raises(SystemExit) as exit_:
        migrate.main(arguments)
    return exit_.value.code


def test_help_tells_options_examples_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == 0
    text = capsys.readouterr().out
    for word in (
        "--check",
        "--dry-run",
        "--wait SECONDS",
        "--rollback",
        "--yes",
        "examples:",
        "exit status: 0",
    ):
        assert word in text
    for example in re.findall(r"python -m worker\.migrate(( +--?\w\S*( \d+)?)*)  ", text):
        migrate.main.make_context("", example[0].split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rollback"], "confirm it with --yes"),
        (["--yes"], "not asked for"),
        (["--check", "--rollback", "--yes"], "not allowed with"),
        (["--wait", "soon"], "not a valid integer"),
        (["--wait", "-1"], "--wait"),
        (["--wait"], "--wait"),
        (["production"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_right(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(*arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "DATABASE_URL is not set"),
        (f"postgresql://user:{SECRET}%zz@host/db", "DATABASE_URL cannot be parsed"),
        (f"password={SECRET} =", "DATABASE_URL cannot be parsed"),
    ],
)
def test_a_wrong_configuration_exits_2_without_showing_it(
    url: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    assert migrate.main([]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert SECRET not in printed.err + printed.out


@pytest.mark.parametrize("password", [SECRET, f"{SECRET}@{SECRET}", f"{SECRET}/{SECRET}"])
def test_a_server_that_cannot_be_reached_exits_1_without_showing_the_password(
    password: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{password}@127.0.0.1:1/db")
    assert migrate.main([]) in (1, 2)
    printed = capsys.readouterr()
    assert "DATABASE_URL" in printed.err
    assert SECRET not in printed.err + printed.out


def test_files_are_timestamped_and_stand_in_order() -> None:
    versions = [migration.version for migration in migrations()]
    assert all(re.fullmatch(r"\d{14}", version) for version in versions)
    assert versions == sorted(set(versions))


def test_supabase_finds_the_same_files() -> None:
    root = Path(__file__).parents[2]
    assert (root / "supabase" / "migrations").readlink() == Path("../migrations")
    assert (root / "supabase" / "config.toml").is_file()
    # Any other file with a timestamp there would be applied as a migration, a rollback first of all.
    assert sorted((root / "migrations").iterdir()) == [
        *(migration.path for migration in migrations()),
        root / "migrations" / "rollback",
    ]


def test_every_migration_has_a_rollback_and_nothing_else_is_there(migration: Migration) -> None:
    assert migration.rollback.is_file()
    assert len(list(migration.rollback.parent.iterdir())) == len(migrations())


def statements(path: Path) -> str:
    return re.sub(r"--.*", "", path.read_text()).strip().lower()


def test_files_leave_the_transaction_to_their_tool_and_never_wait_long(migration: Migration) -> None:
    for path in (migration.path, migration.rollback):
        text = statements(path)
        pinned = r"(set local search_path = pg_catalog, pg_temp;\s+)?"
        assert re.match(pinned + "set local lock_timeout = '5s';", text)
        assert not re.search(r"\bconcurrently\b|\bcommit\b|\bbegin\s*;|\bstart transaction\b", text)


def test_files_use_no_serial_and_no_extension(migration: Migration) -> None:
    assert not re.search(r"serial|create extension|uuid_generate|identity", statements(migration.path))


def test_rollbacks_forget_their_version_in_both_ledgers(migration: Migration) -> None:
    text = statements(migration.rollback)
    assert f"'{migration.version}'" in text
    assert "notiflog.schema_migrations" in text
    assert "supabase_migrations.schema_migrations" in text
