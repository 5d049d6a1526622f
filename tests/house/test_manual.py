"""The README and the manual say what the code does."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.manual import EVERY_PAGE, PAGES, README, ROOT, TEXT, example, section, sections
from worker.__main__ import COMMANDS as NAMES
from worker.judge.classify import FID_SENT_AS_TOKEN, LIVE_ACTIVITY_ENDED
from worker.judge.rules import APNS_RULES, FCM_RULES
from worker.servers import redis_faults, refusals
from worker.servers.settings import Settings, read_settings
from worker.servers.tokens import VARIABLES

EXAMPLE = (ROOT / ".env.example").read_text()
MODULES = sorted((ROOT / "worker").rglob("*.py"))
REASONS = sorted(
    {rule.reason for rule in FCM_RULES}
    | {rule.reason for rule in APNS_RULES}
    | {FID_SENT_AS_TOKEN.reason, LIVE_ACTIVITY_ENDED.reason}
)


# --- what a sentence means --------------------------------------------------------------------------------

MEANINGS = [
    (re.findall(r"`([^`]+)`", said), passes.strip())
    for said, passes in re.findall(
        r"^\| (`.*?`) \| (yes|no|) ?\| ", section("What a sentence means"), re.MULTILINE
    )
]
SAID = [(words, passes) for said, passes in MEANINGS for words in said]
#: What the code says by itself: of hosts that do not answer, of Redis, of settings.
TOLD = [
    *((text.format(host="x", place="x"), "yes") for text, _ in refusals.UNREACHABLE.values()),
    (refusals.ONLY_IPV6[0].format(host="x"), "yes"),
    (refusals.NOBODY[0].format(place="x"), "yes"),
    *((fault.text, "yes" if fault.passes else "no") for fault in redis_faults.ANSWERS.values()),
]


def known(words: str) -> str | None:
    answer = refusals.known(words.replace('"x"', "..."))
    return None if answer is None else "yes" if answer[0] else "no"


@pytest.mark.parametrize(("words", "passes"), SAID)
def test_what_the_table_calls_passing_is_waited_for_and_nothing_else(words: str, passes: str) -> None:
    ours = {does for text, does in TOLD if words in text}
    elsewhere = any(words in module.read_text() for module in MODULES)
    assert passes in ({known(words)} | ours) or (elsewhere and not ours and known(words) is None)


@pytest.mark.parametrize("pattern", [*refusals.LASTING, *refusals.PASSING])
def test_every_known_answer_of_postgresql_stands_in_the_table(pattern: str) -> None:
    assert any(re.search(pattern, words.replace('"x"', "..."), re.IGNORECASE) for words, _ in SAID)


@pytest.mark.parametrize("text", [text for text, _ in TOLD])
def test_every_sentence_of_ours_about_a_server_stands_in_the_table(text: str) -> None:
    assert any(words in text for words, _ in SAID)


def test_the_least_rights_of_a_redis_user_are_shown() -> None:
    least = redis_faults.LEAST.replace("<user>", "notiflog").replace("<password>", "password")
    assert least in section("What a sentence means")


# --- pages and links --------------------------------------------------------------------------------------

LINKS = sorted(
    (page, link)
    for page in EVERY_PAGE
    for link in set(re.findall(r"\]\(([^)\s]+)\)", page.read_text()))
    if not link.startswith("https://")
)


def anchors(page: Path) -> list[str]:
    """As GitHub and MkDocs make them of headings."""
    return [
        re.sub(r"[^\w\- ]", "", each.heading).strip().lower().replace(" ", "-") for each in sections(page)
    ]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_every_link_leads_somewhere(page: Path, link: str) -> None:
    file, _, anchor = link.partition("#")
    to = (page.parent / file).resolve() if file else page
    assert to.exists()
    assert not anchor or anchors(to).count(anchor) == 1


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_every_page_is_reached_from_the_readme_and_the_manuals_front(page: Path) -> None:
    front = ROOT / "docs" / "index.md"
    reached = {(begin, (begin.parent / link.partition("#")[0]).resolve()) for begin, link in LINKS}
    assert page == front or {(README, page), (front, page)} <= reached


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_every_page_has_its_place_in_the_site(page: Path) -> None:
    assert f"- {page.relative_to(ROOT / 'docs')}\n" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("picture", re.findall(r'src(?:set)?="(.+?)"', README.read_text()))
def test_the_readmes_pictures_are_of_the_demo_and_ask_no_network(picture: str) -> None:
    drawn = (ROOT / picture).read_text().replace("&#160;", " ")
    assert "$ .venv/bin/python -m worker.demo" in drawn
    assert "follow_up_notification_log" in drawn
    assert set(re.findall(r"https?://[^\"]+", drawn)) == {"http://www.w3.org/2000/svg"}


def test_the_readme_stays_one_page() -> None:
    assert len(README.read_text().splitlines()) <= 220


def test_every_door_and_every_wing_stands_in_their_table() -> None:
    rows = [line.split("|")[1] for line in section("How it flows").splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+(?:\.py|/))`", row)]
    doors = [path.name for path in MODULES if path.parent.name == "worker" and path.stem != "__init__"]
    wings = {f"{path.parent.name}/" for path in MODULES} - {"worker/"}
    assert sorted(named) == sorted([*doors, *wings])


#: Where figures stand.
MEASURED = [
    "How safe, how fast",
    "Nothing is lost",
    "How fast",
    "What an event costs",
    "Report",
    "When row level security comes",
]


@pytest.mark.parametrize("heading", MEASURED)
def test_figures_have_their_command_and_their_day(heading: str) -> None:
    assert re.search(r"`(python|pytest) [^`]+`", section(heading))
    assert re.search(r"\b2026-\d\d-\d\d\b", section(heading))


def rows(heading: str) -> dict[str, list[str]]:
    """The cells of a section's table, by the first of their row."""
    lines = [line.strip("| ").split(" | ") for line in section(heading).splitlines() if line.startswith("| ")]
    return {first: cells for first, *cells in lines}


def test_what_servers_carry_follows_from_what_an_event_costs() -> None:
    costs = {
        part: [float(cell.removesuffix(" us")) for cell in cells]
        for part, cells in rows("What an event costs").items()
        if cells[0].endswith(" us")
    }
    of_redis = [cost for part, cost in costs.items() if "Redis" in part]
    redis = [sum(cost) for cost in zip(*of_redis, strict=True)]
    carried = {part: cells for part, cells in rows("What that comes to").items() if "core" in part}
    assert len(carried) == 5
    for part, cells in carried.items():
        cores = int(re.findall(r"(\d+) core", part)[0])
        kind = next(kind for kind in ("Redis", "PostgreSQL", "worker") if kind in part)
        rates = [0.7e6 * cores / cost for cost in (redis if kind == "Redis" else costs[kind])]
        said = [
            f"{float(f'{rate:.2g}'):,.0f}/s {float(f'{rate * 0.0864:.2g}'):,.0f} million" for rate in rates
        ]
        assert " ".join(cells) == " ".join(said), part


# --- commands ---------------------------------------------------------------------------------------------

_OPTION = re.compile(r"--[a-z][a-z-]+")
#: Every command that is named, with the options on its line.
COMMANDS = sorted(
    {
        (module, option)
        for module, rest in re.findall(r"python -m ((?:worker|tests)\.[\w.]*\w)([^`\n]*)", TEXT)
        for option in ("--help", *_OPTION.findall(rest))
    }
)
#: Sections about one command: every option in code quotes is this one's.
ABOUT = {
    "Is something wrong?": "worker.check",
    "Probe": "worker.probe",
    "Report": "worker.report",
    "Tokens that died in silence": "worker.sweep",
    "Rolling back": "worker.migrate",
    "Delete old outcomes": "worker.retain",
    "Erase a mentor": "worker.forget",
}


def runnable(module: str) -> Any:
    """What `python -m` runs."""
    found = import_module(module)
    return import_module(f"{module}.__main__") if hasattr(found, "__path__") else found


def options(module: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options that a command's own help shows."""
    with pytest.raises(SystemExit) as ended:
        runnable(module).main(["--help"])
    assert ended.value.code == 0
    return set(_OPTION.findall(capsys.readouterr().out))


@pytest.mark.parametrize(("module", "option"), COMMANDS, ids=lambda word: word)
def test_every_command_has_the_options_that_are_shown(
    module: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert option in options(module, capsys)


@pytest.mark.parametrize(("heading", "module"), ABOUT.items(), ids=ABOUT)
def test_a_section_about_a_command_names_no_option_that_it_lacks(
    heading: str, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = set(re.findall(r"`(--[a-z][a-z-]+)", section(heading)))
    assert named <= options(module, capsys)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tests|worker|migrations)/[\w/.]*\w\.\w+", TEXT))))
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("name", ["", *NAMES], ids=lambda name: name or "all")
def test_the_reference_shows_what_help_prints(name: str) -> None:
    command = ["python", "-m", f"worker.{name}".removesuffix("."), "--help"]
    helped = subprocess.run(
        [sys.executable, *command[1:]], env={"COLUMNS": "80"}, capture_output=True, text=True, check=True
    )
    heading = f"notiflog {name}" if name else "Commands"
    assert example(heading, "text") == f"$ {' '.join(command)}\n{helped.stdout}"


# --- outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_stands_in_the_outcome_table(reason: str) -> None:
    assert f"`{reason}`" in section("What an answer means")


def test_no_reason_stands_there_that_the_rules_do_not_know() -> None:
    rows = section("What an answer means").splitlines()
    cells = [line.split("|")[2] for line in rows if line.startswith("| ")][1:]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(REASONS)


# --- configuration ----------------------------------------------------------------------------------------


def variables(module: Path) -> Iterator[str]:
    """The names that a module looks up in the environment."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            looked_up, names = ast.unparse(node.func), node.args[:1]
        elif isinstance(node, ast.Subscript):
            looked_up, names = ast.unparse(node.value) + ".get", [node.slice]
        else:
            continue
        if re.search(r"\b(environ\.\w+|getenv)$", looked_up):
            yield from (str(ast.literal_eval(name)) for name in names if isinstance(name, ast.Constant))


#: What libraries read for us.
THEIRS = {"RQ_WORKER_CLASS", "RQ_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"}
COMMON = {variable for variable in VARIABLES if variable.startswith("NOTIFLOG_TOKEN_")}
OURS = {variable for module in MODULES for variable in variables(module)} | COMMON


@pytest.mark.parametrize("variable", sorted(OURS | THEIRS))
def test_every_variable_stands_in_the_configuration_and_the_example(variable: str) -> None:
    assert f"| `{variable}` |" in section("Configuration")
    assert re.search(rf"^(# )?{variable}=", EXAMPLE, re.MULTILINE)


def test_the_configuration_names_no_variable_that_nobody_reads() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", section("Configuration"), re.MULTILINE)) == OURS | THEIRS


def test_the_example_is_valid_and_shows_the_defaults() -> None:
    lines = dict(line.split("=", 1) for line in EXAMPLE.splitlines() if re.match(r"[A-Z]", line))
    settings = read_settings({name: value.strip("'") for name, value in lines.items()})
    assert settings == Settings(database_url=settings.database_url)


def test_pins_are_exact_and_meet_the_declared_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    extras = project["optional-dependencies"]
    declared = [*project["dependencies"], *extras["worker"], *extras["sweep"]]
    names = {name[0] for name in (re.match(r"[\w-]+", dependency) for dependency in declared) if name}
    assert names - {"notiflog"} <= set(pins)


def test_every_extra_for_users_stands_in_the_installation() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    ours = {"test", "bench", "dev", "docs", "publish"}
    shown = re.findall(r"^\| `(\w+)` \|", section("Install"), re.MULTILINE)
    assert set(shown) == set(extras) - ours


# --- what apps use ----------------------------------------------------------------------------------------


def test_the_python_api_names_what_there_is() -> None:
    page = (ROOT / "docs/reference/python-api.md").read_text()
    modules = re.findall(r"^::: (.+)((?:\n .*)+)", page, re.MULTILINE)
    assert modules
    for module, options_ in modules:
        for name in re.findall(r"\w+", options_.partition("members:")[2]):
            assert hasattr(import_module(module.replace("notiflog", "worker")), name), f"{module}.{name}"


def test_the_tables_of_sql_are_those_of_the_database(database: str) -> None:
    with psycopg.connect(database) as connection:
        columns = connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute"
            " where attrelid = 'public.follow_up_notification_log'::regclass and attnum > 0"
            " and not attisdropped order by attnum"
        ).fetchall()
        functions = connection.execute(
            "select proname from pg_proc where pronamespace = 'public'::regnamespace order by proname"
        ).fetchall()
        roles = connection.execute("select rolname from pg_roles where rolname like 'notiflog%'").fetchall()
    shown = re.findall(r"^\| `(\w+)` \| `(.+?)` \|", section("The log table"), re.MULTILINE)
    assert shown == columns
    named = re.findall(r"^\| `public\.(\w+)\(", section("The functions"), re.MULTILINE)
    assert sorted(named) == [name for (name,) in functions]
    assert {name for (name,) in roles} >= set(
        re.findall(r"^\| `(\w+)` \|", section("The roles"), re.MULTILINE)
    )
