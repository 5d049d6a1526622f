"""The file that GOOGLE_APPLICATION_CREDENTIALS names: does FCM take it? Nothing of it is ever shown."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
#: How to come by a right one.
REMEDY = (
    "download a service account's key in the Firebase console, under Project settings, Service accounts, and "
    f"have {VARIABLE} name that file"
)

# Google's other kinds of such files name no project.
_OTHERS = {
    "authorized_user",
    "external_account",
    "external_account_authorized_user",
    "gdch_service_account",
    "impersonated_service_account",
}
_PROJECTS = ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT")
_FIELDS = ("client_email", "private_key", "project_id", "token_uri")


def unusable(environ: Mapping[str, str]) -> str | None:
    """What is wrong with the file, as the end of a sentence about the variable.

    None: nothing that can be seen here, or the variable is not set.
    """
    if not (name := environ.get(VARIABLE)):
        return None
    if name.lstrip().startswith("{"):
        return "holds JSON instead of a file's name"
    try:
        content = json.loads(Path(name).read_bytes())
    except FileNotFoundError:
        return "names a file that is not there"
    except OSError as error:
        return f"names a file that cannot be read ({error.strerror})"
    except (ValueError, RecursionError):
        return "names a file that is not JSON"
    return _misses(content, environ)


def _misses(content: Any, environ: Mapping[str, str]) -> str | None:
    if not isinstance(content, dict):
        return "names a file that is no JSON object"
    if "project_info" in content:
        return "names an app's google-services.json, which is for the app"
    kind = content.get("type")
    if isinstance(kind, str) and kind in _OTHERS:
        named = any(environ.get(project) for project in _PROJECTS)
        return None if named else f"names a file without a project, and {_PROJECTS[0]} is not set either"
    if kind != "service_account":
        return "names a file that is no service account's key: its `type` says so"
    if missing := [
        field for field in _FIELDS if not isinstance(content.get(field), str) or not content[field]
    ]:
        return f"names a service account's key without {', '.join(missing)}"
    if "-----BEGIN " not in content["private_key"]:
        return "names a service account's key whose private_key is no PEM text"
    return None
