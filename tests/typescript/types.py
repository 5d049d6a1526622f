"""Make TypeScript's types of an event: `python -m tests.typescript.types > examples/edge/event.ts`."""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "worker/event.schema.json"
MADE = ROOT / "examples/edge/event.ts"

_PLAIN = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}


def typescript(schema: dict[str, Any]) -> str:
    """The types of a schema's definitions, as a module."""
    parts = ["// Made of worker/event.schema.json by `python -m tests.typescript.types`: do not edit.\n"]
    parts += [_definition(name, definition) for name, definition in schema["$defs"].items()]
    return "\n".join(parts)


def _definition(name: str, definition: dict[str, Any]) -> str:
    required = definition["required"]
    fields = [
        f"  {field}{'' if field in required else '?'}: {_type(kind)};\n"
        for field, kind in definition["properties"].items()
    ]
    lines = f"/** {definition['description']} */\nexport type {name} = {{\n{''.join(fields)}}}"
    # What a schema says by `oneOf` is a union of what each alternative demands and the others lack.
    alternatives = [one["required"][0] for one in definition.get("oneOf", ())]
    unions = [
        "{ "
        + " ".join(f"{other}{': string' if other == one else '?: null'};" for other in alternatives)
        + " }"
        for one in alternatives
    ]
    either = "".join(f"\n  | {union}" for union in unions)
    return lines + (f" & ({either}\n)" if unions else "") + ";\n"


def _type(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return str(kind["$ref"].rpartition("/")[2])
    if "enum" in kind:
        return " | ".join(json.dumps(value) for value in kind["enum"])
    if "anyOf" in kind:
        return " | ".join(map(_type, kind["anyOf"]))
    if kind.get("type") == "array":
        return f"{_type(kind['items'])}[]"
    return _PLAIN[kind["type"]] if "type" in kind else "unknown"


if __name__ == "__main__":
    sys.stdout.write(typescript(json.loads(SCHEMA.read_text())))
