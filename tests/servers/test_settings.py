"""What the environment may say, and that every mistake in it is told at once and without its secrets."""

import subprocess
import traceback
from datetime import timedelta
from pathlib import Path

import pytest

import worker
from worker.servers.findings import settings_findings
from worker.servers.redis import BadAddress, address
from worker.servers.settings import ConfigError, Settings, read_settings
from worker.servers.tokens import Mark, TokenTable

URL = "postgresql://notiflog:S3CR3T@db.example.org:5432/app"
NAMES = ("NOTIFLOG_TOKEN_TABLE", "NOTIFLOG_TOKEN_COLUMN", "NOTIFLOG_TOKEN_REGISTERED_COLUMN")


def _problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(environ)
    return str(caught.value).splitlines()


def tokens(**environ: str) -> TokenTable:
    """The token table of both channels."""
    (table,) = set(read_settings({"DATABASE_URL": URL, **environ}).tokens.values())
    return table


# --- what is read ---------------------------------------------------------------------------------------


def test_a_database_is_all_that_has_to_be_set() -> None:
    table = TokenTable(table=("public", "device_tokens"), column="token", registered=("updated_at",))
    assert read_settings({"DATABASE_URL": URL}) == Settings(
        database_url=URL, tokens={"fcm": table, "apns": table}, connections=3
    )


def test_the_app_s_own_names() -> None:
    assert tokens(
        NOTIFLOG_TOKEN_TABLE="push.devices",
        NOTIFLOG_TOKEN_COLUMN="fcm_token",
        NOTIFLOG_TOKEN_REGISTERED_COLUMN="last_seen_at",
    ) == TokenTable(table=("push", "devices"), column="fcm_token", registered=("last_seen_at",))


def test_a_table_without_a_schema_is_found_by_the_search_path() -> None:
    assert tokens(NOTIFLOG_TOKEN_TABLE="devices").table == ("devices",)


def test_an_empty_registered_column_says_that_the_table_has_none() -> None:
    assert tokens(NOTIFLOG_TOKEN_REGISTERED_COLUMN="").registered == ()


def test_who_wrote_a_file_that_nothing_has_read_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (usual,) = _problems()
    Path(".env").write_text(f"DATABASE_URL={URL}")
    (told,) = _problems()
    assert usual == "DATABASE_URL is not set: postgresql://user:password@host:5432/database"
    assert "nothing has read it; have your shell do so: `set -a; . ./.env; set +a`" in told


def test_a_shell_reads_the_example_as_its_other_readers_do() -> None:
    example = Path(worker.__file__).parents[1] / ".env.example"
    done = subprocess.run(
        ["/bin/sh", "-c", "set -ea; . ./.env.example; env -0"],
        env={},
        cwd=example.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    read = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if pair)
    written = {
        name: value.strip("'")
        for name, _, value in (line.partition("=") for line in example.read_text().splitlines())
        if name.isidentifier()
    }
    assert {name: read.get(name) for name in written} == written
    assert read_settings(read).database_url == written["DATABASE_URL"]


SETTINGS: dict[str, tuple[dict[str, str], TokenTable]] = {
    "several columns, of which the newest counts": (
        {"NOTIFLOG_TOKEN_REGISTERED_COLUMN": "registered_at, last_refreshed_at"},
        TokenTable(registered=("registered_at", "last_refreshed_at")),
    ),
    "names in double quotes, as they stand": (
        {
            "NOTIFLOG_TOKEN_TABLE": '"App"."DeviceToken"',
            "NOTIFLOG_TOKEN_COLUMN": '"pushToken"',
            "NOTIFLOG_TOKEN_REGISTERED_COLUMN": '"updatedAt","a ""b"", c"',
        },
        TokenTable(table=("App", "DeviceToken"), column="pushToken", registered=("updatedAt", 'a "b", c')),
    ),
    "one part in quotes": (
        {"NOTIFLOG_TOKEN_TABLE": 'public."DeviceToken"'},
        TokenTable(table=("public", "DeviceToken")),
    ),
    "a zone": ({"NOTIFLOG_TOKEN_REGISTERED_ZONE": "America/New_York"}, TokenTable(zone="America/New_York")),
    "delete": ({"NOTIFLOG_TOKEN_PRUNE": "delete"}, TokenTable(mark=None)),
    "set to false": (
        {"NOTIFLOG_TOKEN_PRUNE": "is_active=false"},
        TokenTable(mark=Mark("is_active", "false")),
    ),
    "set to true": ({"NOTIFLOG_TOKEN_PRUNE": "dead=true"}, TokenTable(mark=Mark("dead", "true"))),
    "set to now": ({"NOTIFLOG_TOKEN_PRUNE": "disabled_at=now"}, TokenTable(mark=Mark("disabled_at", "now"))),
    "set to null": ({"NOTIFLOG_TOKEN_PRUNE": '"fcmToken"=null'}, TokenTable(mark=Mark("fcmToken", "null"))),
}


@pytest.mark.parametrize(("environ", "table"), SETTINGS.values(), ids=SETTINGS)
def test_what_can_be_said_of_a_token_table(environ: dict[str, str], table: TokenTable) -> None:
    assert tokens(**environ) == table


@pytest.mark.parametrize("channel", ["fcm", "apns"])
@pytest.mark.parametrize(("environ", "table"), SETTINGS.values(), ids=SETTINGS)
def test_it_can_be_said_for_one_channel(channel: str, environ: dict[str, str], table: TokenTable) -> None:
    own = {name.replace("_TOKEN_", f"_{channel.upper()}_TOKEN_", 1): value for name, value in environ.items()}
    found = read_settings({"DATABASE_URL": URL, **own}).tokens
    (other,) = {"fcm", "apns"} - {channel}
    assert (found[channel], found[other]) == (table, TokenTable())


def test_what_is_said_for_one_channel_is_stronger() -> None:
    environ = {"NOTIFLOG_TOKEN_TABLE": "devices", "NOTIFLOG_APNS_TOKEN_TABLE": "apns_devices"}
    found = read_settings({"DATABASE_URL": URL, **environ}).tokens
    assert [str(found[channel]) for channel in ("fcm", "apns")] == ["devices", "apns_devices"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "remove",
        "is_active",
        "is_active=",
        "=false",
        "is_active=0",
        "is_active=FALSE",
        "a.b=null",
        "A=null",
    ],
    ids=repr,
)
def test_another_way_to_prune_is_refused_with_those_there_are(value: str) -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_TOKEN_PRUNE=value)
    assert problem.startswith("NOTIFLOG_TOKEN_PRUNE must be delete, or COLUMN=false, COLUMN=true, COLUMN=now")


@pytest.mark.parametrize("value", ["Berlin", "Europe/Atlantis", "+02:00", "UTC; drop table users"])
def test_a_zone_that_nobody_knows_is_refused(value: str) -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_TOKEN_REGISTERED_ZONE=value)
    assert problem.startswith("NOTIFLOG_TOKEN_REGISTERED_ZONE")


def test_a_mistake_of_one_channel_names_its_own_variable() -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_APNS_TOKEN_COLUMN="No Name")
    assert problem.startswith("NOTIFLOG_APNS_TOKEN_COLUMN must be a column name")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("postgres://notiflog@db/app", id="the short scheme"),
        pytest.param(
            "postgresql://notiflog:S%25CR3T@db/app?sslmode=verify-full", id="percent-encoded, with options"
        ),
        pytest.param("host=db dbname=app user=notiflog password='S3 CR3T'", id="key=value"),
    ],
)
def test_whatever_libpq_reads_is_a_database_url(url: str) -> None:
    assert read_settings({"DATABASE_URL": url}).database_url == url


def test_a_worker_s_connections() -> None:
    assert read_settings({"DATABASE_URL": URL, "NOTIFLOG_CONNECTIONS": "1"}).connections == 1


@pytest.mark.parametrize("value", ["0", "9", "-1", "10", "1.5", "two", " "])
def test_a_number_of_connections_that_makes_no_sense_is_refused(value: str) -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_CONNECTIONS=value)
    assert problem.startswith("NOTIFLOG_CONNECTIONS must be a number from 1 to 8")


def test_other_variables_are_none_of_its_business() -> None:
    assert read_settings({"DATABASE_URL": URL, "NOTIFLOG": "x", "PATH": "\0"}) == read_settings(
        {"DATABASE_URL": URL}
    )


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", [{}, {"DATABASE_URL": ""}], ids=["not set", "empty"])
def test_a_missing_database_is_told_with_the_remedy(environ: dict[str, str]) -> None:
    assert _problems(**environ) == [
        "DATABASE_URL is not set: postgresql://user:password@host:5432/database",
    ]


def test_every_problem_is_told_at_once() -> None:
    problems = _problems(**dict.fromkeys(NAMES, "No Name"))

    assert [problem.split()[0] for problem in problems] == ["DATABASE_URL", *NAMES]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x\0y", id="NUL, which would cut a quoted name short"),
        pytest.param('x"y', id="a quote"),
        pytest.param("x'y", id="an apostrophe"),
        pytest.param("Devices", id="upper case"),
        pytest.param("geräte", id="letters beyond ASCII"),
        pytest.param("x\ud800", id="a lone surrogate"),
        pytest.param("x" * 64, id="64 characters, which the server would cut short"),
        pytest.param("1st", id="a digit first"),
        pytest.param("push-tokens", id="a dash"),
        pytest.param("push tokens", id="a blank"),
        pytest.param("tokens\n", id="a line break at the end"),
        pytest.param("tokens;drop table users", id="a statement"),
        pytest.param("a.b.c", id="three parts"),
    ],
)
@pytest.mark.parametrize("variable", NAMES)
def test_a_name_that_would_need_quoting_is_refused(variable: str, name: str) -> None:
    problems = _problems(**{"DATABASE_URL": URL, variable: name})

    assert [problem.split()[0] for problem in problems] == [variable]


@pytest.mark.parametrize("name", ["", ".", "push.", ".devices", "push..devices"], ids=repr)
def test_a_table_with_an_empty_part_is_refused(name: str) -> None:
    problems = _problems(DATABASE_URL=URL, NOTIFLOG_TOKEN_TABLE=name)

    assert [problem.split()[0] for problem in problems] == ["NOTIFLOG_TOKEN_TABLE"]


@pytest.mark.parametrize("variable", NAMES[1:])
def test_a_column_has_one_part(variable: str) -> None:
    problems = _problems(**{"DATABASE_URL": URL, variable: "devices.token"})

    assert [problem.split()[0] for problem in problems] == [variable]


def test_the_token_column_cannot_be_empty() -> None:
    problems = _problems(DATABASE_URL=URL, NOTIFLOG_TOKEN_COLUMN="")

    assert [problem.split()[0] for problem in problems] == ["NOTIFLOG_TOKEN_COLUMN"]


@pytest.mark.parametrize("variable", NAMES)
def test_a_name_of_63_characters_is_long_but_a_name(variable: str) -> None:
    assert "x" * 63 in repr(read_settings({"DATABASE_URL": URL, variable: "x" * 63}))


BROKEN_URLS = [
    pytest.param("postgresql://notiflog:S3CR3T%zz@db/app", id="a bad percent escape in the password"),
    pytest.param("postgresql://notiflog@[S3CR3T/app", id="a bracket left open"),
    pytest.param("postgresql://notiflog@db/app?S3CR3T=1", id="an option nobody knows"),
    pytest.param("mysql://notiflog:S3CR3T@db/app", id="another database's scheme"),
    pytest.param("host=db password=S3CR3T app", id="key=value with a value left over"),
    pytest.param("host=db password='S3CR3T", id="key=value with a quote left open"),
    pytest.param("S3CR3T", id="the password alone"),
    pytest.param("postgresql://notiflog:S3CR3T\udcff@db/app", id="bytes that are not UTF-8"),
]


@pytest.mark.parametrize("url", BROKEN_URLS)
def test_a_broken_database_url_is_told_with_the_remedy(url: str) -> None:
    problems = _problems(DATABASE_URL=url)

    assert [problem.split(":")[0] for problem in problems] == ["DATABASE_URL cannot be parsed"]


@pytest.mark.parametrize("url", BROKEN_URLS)
def test_a_broken_database_url_is_never_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_settings({"DATABASE_URL": url})

    assert "S3CR3T" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("variable", NAMES)
def test_a_refused_name_is_never_repeated(variable: str) -> None:
    # A URL pasted into the wrong variable is the mistake that happens.
    assert "S3CR3T" not in "\n".join(_problems(**{"DATABASE_URL": URL, variable: URL}))


# --- what was copied from elsewhere, or mistyped ----------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "own", "passed_over"),
    [
        ("postgres://u:p@h/d?pgbouncer=true", "postgres://u:p@h/d", ("pgbouncer",)),
        (
            "postgres://u:p@h:6543/d?pgbouncer=true&connection_limit=1&sslmode=require",
            "postgres://u:p@h:6543/d?sslmode=require",
            ("pgbouncer", "connection_limit"),
        ),
        (
            "postgres://u:p@h/d?schema=public&sslaccept=strict",
            "postgres://u:p@h/d",
            ("schema", "sslaccept"),
        ),
        ("postgres://u:p@h/d?supa=base-pooler.x", "postgres://u:p@h/d", ("supa",)),
        (
            "postgres://u:p@h/d?prepared_statements=false&application_name=a",
            "postgres://u:p@h/d?application_name=a",
            ("prepared_statements",),
        ),
        ("postgresql+psycopg://u:p@h/d", "postgresql://u:p@h/d", ()),
        ("postgres+asyncpg://u:p@h/d", "postgresql://u:p@h/d", ()),
        ("postgres://u:p?supa=1@h/d", "postgres://u:p?supa=1@h/d", ()),
        ("host=h dbname=d", "host=h dbname=d", ()),
    ],
)
def test_parameters_of_other_clients_are_passed_over(
    url: str, own: str, passed_over: tuple[str, ...]
) -> None:
    settings = read_settings({"DATABASE_URL": url})

    assert (settings.database_url, settings.passed_over) == (own, passed_over)
    told = [str(finding) for finding in settings_findings(settings)]
    assert [name for name in passed_over if name not in "".join(told)] == []
    assert len(told) == bool(passed_over)


@pytest.mark.parametrize("url", ["postgres://u:p@S3CR3T@h/d", "postgres://u:12/S3CR3T@h/d"])
def test_a_password_that_cuts_the_address_is_told(url: str) -> None:
    (problem,) = _problems(DATABASE_URL=url)

    assert problem.startswith("DATABASE_URL has an @ behind its password: ")
    assert "percent-encoded" in problem
    assert "S3CR3T" not in problem


def test_a_parameter_that_nobody_knows_is_said_to_be_one() -> None:
    (problem,) = _problems(DATABASE_URL="postgres://u:p@h/d?S3CR3T=1")

    assert "take out the parameters that PostgreSQL does not know" in problem


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NOTIFLOG_TOKEN_COLUM", "NOTIFLOG_TOKEN_COLUMN"),
        ("NOTIFLOG_REQUIRE_TSL", "NOTIFLOG_REQUIRE_TLS"),
        ("NOTIFLOG_CONECTIONS", "NOTIFLOG_CONNECTIONS"),
        ("NOTIFLOG_APNS_TOKENS_TABLE", "NOTIFLOG_APNS_TOKEN_TABLE"),
        ("NOTIFLOG_TOKEN_REGISTERED_COLUMNS", "NOTIFLOG_TOKEN_REGISTERED_COLUMN"),
    ],
)
def test_a_mistyped_name_is_told_with_the_nearest(name: str, nearest: str) -> None:
    assert _problems(**{"DATABASE_URL": URL, name: "S3CR3T"}) == [
        f"{name} is not known: did you mean {nearest}?"
    ]


def test_a_mistyped_worker_class_is_told() -> None:
    (problem,) = _problems(DATABASE_URL=URL, RQ_WORKER_CLASS="worker.drain.DrainWorkr")

    assert problem == "RQ_WORKER_CLASS names no worker: did you mean worker.drain.DrainWorker?"


@pytest.mark.parametrize("name", ["NOTIFLOG_TEST_OUTAGE", "NOTIFLOG_SHADE", "NOTIFLOG_"])
def test_a_name_that_resembles_none_is_let_be(name: str) -> None:
    assert read_settings({"DATABASE_URL": URL, name: "x"}) == read_settings({"DATABASE_URL": URL})


@pytest.mark.parametrize(
    "chosen", ["worker.drain.DrainWorker", "notiflog.drain.DrainWorker", "rq.SimpleWorker"]
)
def test_other_worker_classes_are_let_be(chosen: str) -> None:
    assert read_settings({"DATABASE_URL": URL, "RQ_WORKER_CLASS": chosen}).database_url == URL


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "expected redis://"),
        ("redis://:S3CR3T@localhost?family=0", "take out family;"),
        ("redis://:S3CR3T@localhost?tls=true", "take out tls; for TLS write rediss://"),
        ("rediss://:S3CR3T@localhost?ssl=true", "take out ssl;"),
        ("redis://:S3CR3T@localhost?decode_responses=True", "decode_responses: take it out"),
        ("redis://:S3CR3T@localhost?ssl_cert_reqs=none", "ssl_... without rediss://"),
        ("redis://localhost?S3CR3T=1", "those of other clients"),
        ("rediss://:S3CR3T@localhost?ssl_cert_reqs=S3CR3T", "impossible value"),
        ("redis://:S3CR3T@localhost?db=S3CR3T", "cannot be parsed"),
    ],
)
def test_an_address_of_redis_that_cannot_work_is_told(url: str, words: str) -> None:
    with pytest.raises(BadAddress) as caught:
        address({"REDIS_URL": url})

    assert str(caught.value).startswith("REDIS_URL ")
    assert words in str(caught.value)
    assert "S3CR3T" not in str(caught.value)


# --- servers that must prove who they are -----------------------------------------------------------------

ELSEWHERE = "postgresql://notiflog:S3CR3T@db.example.org/app"
VERIFIED = f"{ELSEWHERE}?sslmode=verify-full&sslrootcert=/ca.crt"


@pytest.mark.parametrize("value", ["", "0"])
def test_by_default_nothing_has_to_be_verified(value: str) -> None:
    environ = {"DATABASE_URL": ELSEWHERE, "REDIS_URL": "redis://h", "NOTIFLOG_REQUIRE_TLS": value}
    assert read_settings(environ).database_url == ELSEWHERE


def test_an_unverified_database_is_refused_with_the_remedy() -> None:
    (problem,) = _problems(DATABASE_URL=ELSEWHERE, NOTIFLOG_REQUIRE_TLS="1")
    assert "sslmode=prefer" in problem
    assert "add sslmode=verify-full&sslrootcert=" in problem


@pytest.mark.parametrize("variable", ["REDIS_URL", "RQ_REDIS_URL"])
@pytest.mark.parametrize("url", ["redis://:S3CR3T@cache.example.org", "S3CR3T"], ids=["plain", "broken"])
def test_an_unverified_redis_is_refused_with_the_remedy(variable: str, url: str) -> None:
    (problem,) = _problems(**{"DATABASE_URL": VERIFIED, "NOTIFLOG_REQUIRE_TLS": "1", variable: url})
    assert problem.startswith("REDIS_URL ")
    assert "use rediss://" in problem
    assert "S3CR3T" not in problem


def test_verified_servers_are_accepted() -> None:
    environ = {"DATABASE_URL": VERIFIED, "REDIS_URL": "rediss://h", "NOTIFLOG_REQUIRE_TLS": "1"}
    assert read_settings(environ).database_url == VERIFIED


def test_any_other_value_is_refused() -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_REQUIRE_TLS="yes")
    assert problem.startswith("NOTIFLOG_REQUIRE_TLS must be 1")


# --- what is shown --------------------------------------------------------------------------------------


def test_settings_do_not_show_the_database_url() -> None:
    assert repr(read_settings({"DATABASE_URL": URL})) == (
        "Settings(tokens={'fcm': TokenTable(table=('public', 'device_tokens'), column='token', "
        "registered=('updated_at',), zone=None, mark=None), 'apns': TokenTable(table=('public', "
        "'device_tokens'), column='token', registered=('updated_at',), zone=None, mark=None)}, "
        "connections=3, prune_limit=0.1)"
    )


@pytest.mark.parametrize(("text", "days"), [("400d", 400), ("35d", 35), ("", None)])
def test_how_long_outcomes_are_kept(text: str, days: int | None) -> None:
    kept = read_settings({"DATABASE_URL": URL, "NOTIFLOG_RETAIN": text}).retain
    assert kept == (timedelta(days=days) if days else None)


@pytest.mark.parametrize(
    "text", ["34d", "400", "d", "-400d", "1y", "400 d", "123456d", "\u0664\u0660\u0660d"]
)
def test_what_is_no_time_to_keep_outcomes_for(text: str) -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_RETAIN=text)
    assert problem == (
        "NOTIFLOG_RETAIN must be a number of days like 400d, at least 35d, or empty (delete nothing)"
    )


@pytest.mark.parametrize(
    ("text", "hook"), [("app.push.on_notices", "app.push.on_notices"), ("a.b_2", "a.b_2"), ("", None)]
)
def test_whom_notices_are_for(text: str, hook: str | None) -> None:
    assert read_settings({"DATABASE_URL": URL, "NOTIFLOG_HOOK": text}).hook == hook


@pytest.mark.parametrize(
    "text", ["on_notices", "app.push:on_notices", ".a", "a.", "a..b", "a.b()", "\u00e4.b", "a.b\n"]
)
def test_what_is_no_name_of_a_function(text: str) -> None:
    (problem,) = _problems(DATABASE_URL=URL, NOTIFLOG_HOOK=text)
    assert (
        problem == "NOTIFLOG_HOOK must be the dotted name of a function, like app.push.on_notices, or empty"
    )
