"""What is wrong with the file that GOOGLE_APPLICATION_CREDENTIALS names, told without a word of it."""

import json
from pathlib import Path

import pytest

from worker.servers.credentials import unusable

MARK = "S3CR3T"
KEY = {
    "type": "service_account",
    "project_id": MARK,
    "client_email": f"{MARK}@example.org",
    "private_key": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n",
    "token_uri": f"https://{MARK}",
}


def without(*fields: str) -> str:
    return json.dumps({name: value for name, value in KEY.items() if name not in fields})


#: What stands in the file, and what is said; None: nothing.
FILES: dict[str, tuple[str, str | None]] = {
    "a service account's key": (json.dumps(KEY), None),
    "nothing": ("", "names a file that is not JSON"),
    "no JSON": (f"key: {MARK}", "names a file that is not JSON"),
    "bytes": ("\x00\x01", "names a file that is not JSON"),
    "endless nesting": ("[" * 100_000, "names a file that is not JSON"),
    "a list": (f'["{MARK}"]', "names a file that is no JSON object"),
    "an empty object": ("{}", "names a file that is no service account's key: its `type` says so"),
    "another type": (
        f'{{"type": "{MARK}"}}',
        "names a file that is no service account's key: its `type` says so",
    ),
    "a type of no kind": (
        '{"type": ["x"]}',
        "names a file that is no service account's key: its `type` says so",
    ),
    "the app's own file": (
        f'{{"project_info": {{"project_id": "{MARK}"}}, "client": []}}',
        "names an app's google-services.json, which is for the app",
    ),
    "no project": (without("project_id"), "names a service account's key without project_id"),
    "no key": (
        without("private_key", "client_email"),
        "names a service account's key without client_email, private_key",
    ),
    "a field of another kind": (
        json.dumps({**KEY, "project_id": 1}),
        "names a service account's key without project_id",
    ),
    "a key that is none": (
        json.dumps({**KEY, "private_key": MARK}),
        "names a service account's key whose private_key is no PEM text",
    ),
    "somebody's own login": (
        f'{{"type": "authorized_user", "refresh_token": "{MARK}"}}',
        "names a file without a project, and GOOGLE_CLOUD_PROJECT is not set either",
    ),
}


@pytest.mark.parametrize(("content", "problem"), FILES.values(), ids=FILES)
def test_a_file(tmp_path: Path, content: str, problem: str | None) -> None:
    path = tmp_path / f"{MARK}.json"
    path.write_text(content)
    assert unusable({"GOOGLE_APPLICATION_CREDENTIALS": str(path)}) == problem


def test_somebodys_own_login_will_do_where_the_project_is_named(tmp_path: Path) -> None:
    path = tmp_path / "login.json"
    path.write_text('{"type": "authorized_user"}')
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "GCLOUD_PROJECT": "example"}
    assert unusable(environ) is None


def test_no_file(tmp_path: Path) -> None:
    said = [
        unusable({"GOOGLE_APPLICATION_CREDENTIALS": value})
        for value in ("", str(tmp_path / MARK), str(tmp_path), json.dumps(KEY), "x" * 5000, "\0")
    ]
    assert said == [
        None,
        "names a file that is not there",
        "names a file that cannot be read (Is a directory)",
        "holds JSON instead of a file's name",
        "names a file that cannot be read (File name too long)",
        "names a file that is not JSON",
    ]
