"""The YAML in the documents can be read, and is what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[Any]:
    found = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [each for block in found for each in yaml.safe_load_all(block)]


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_it_can_be_read(page: str) -> None:
    assert all(blocks(page))


def test_containers_get_what_they_need() -> None:
    """The directory, mounted where the variables say, in Compose's words and in those of Kubernetes."""
    compose, daemon_set, pod = blocks("containers.md")
    service = compose["services"]["cache"]
    (source, target), environment = service["volumes"][0].split(":"), service["environment"]
    (container,) = pod["spec"]["containers"]
    assert container["volumeMounts"] == [{"name": "appswitch", "mountPath": target}]
    assert pod["spec"]["volumes"][0]["hostPath"]["path"] == source
    variables = {each["name"]: each["value"] for each in container["env"]}
    assert environment.items() <= variables.items()
    assert all(environment[name].startswith(f"{target}/") for name in ("LD_PRELOAD", "APPSWITCH_SOCKET"))
    trap = daemon_set["spec"]["template"]["spec"]
    assert trap["hostNetwork"]
    assert trap["hostPID"]
    assert source in trap["containers"][0]["command"]
    assert set(daemon_set["spec"]["selector"]["matchLabels"].items()) == {("app", "appswitch")}
