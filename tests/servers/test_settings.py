"""What the environment may say, and that every mistake in it is told at once and without its secrets."""

import traceback

import pytest

from worker.servers.settings import ConfigError, Settings, read_settings

URL = "postgresql://notiflog:S3CR3T@db.example.org:5432/app"
NAMES = ("NOTIFLOG_TOKEN_TABLE", "NOTIFLOG_TOKEN_COLUMN", "NOTIFLOG_TOKEN_REGISTERED_COLUMN")


def _problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_settings(environ)
    return str(caught.value).splitlines()


# --- what is read ---------------------------------------------------------------------------------------


def test_a_database_is_all_that_has_to_be_set() -> None:
    assert read_settings({"DATABASE_URL": URL}) == Settings(
        database_url=URL,
        token_table=("public", "device_tokens"),
        token_column="token",
        token_registered_column="updated_at",
        connections=3,
    )


def test_the_app_s_own_names() -> None:
    assert read_settings(
        {
            "DATABASE_URL": URL,
            "NOTIFLOG_TOKEN_TABLE": "push.devices",
            "NOTIFLOG_TOKEN_COLUMN": "fcm_token",
            "NOTIFLOG_TOKEN_REGISTERED_COLUMN": "last_seen_at",
        }
    ) == Settings(
        database_url=URL,
        token_table=("push", "devices"),
        token_column="fcm_token",
        token_registered_column="last_seen_at",
    )


def test_a_table_without_a_schema_is_found_by_the_search_path() -> None:
    settings = read_settings({"DATABASE_URL": URL, "NOTIFLOG_TOKEN_TABLE": "devices"})

    assert settings.token_table == ("devices",)


def test_an_empty_registered_column_says_that_the_table_has_none() -> None:
    settings = read_settings({"DATABASE_URL": URL, "NOTIFLOG_TOKEN_REGISTERED_COLUMN": ""})

    assert settings.token_registered_column is None


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
        "Settings(token_table=('public', 'device_tokens'), token_column='token', "
        "token_registered_column='updated_at', connections=3)"
    )
