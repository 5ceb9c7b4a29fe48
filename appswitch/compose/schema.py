"""The JSON schema of compose files, for editors: made of the types in file.py.

python -m appswitch.compose.schema > docs/compose.schema.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from appswitch.compose.file import File

ADDRESS = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The schema. Every mapping takes extensions (`x-...`), too."""
    made = msgspec.json.schema(File)
    for definition in made["$defs"].values():
        if definition.get("additionalProperties") is False:
            definition["patternProperties"] = {"^x-": {}}
    return {"$schema": ADDRESS, "title": "AppSwitch compose file", **made}


def text() -> str:
    """As it is published."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
