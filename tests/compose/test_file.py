"""What may be written; and where an error is, to the line and the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appswitch.compose import file, schema
from tests.compose.files import refused, understood

WEB = "services:\n  web:\n    command: x\n"
DOCUMENT = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("image: nginx", "services.web.image: the key image isn't known here\nhint: programs are run as they are"),
        ("build: .", "services.web.build: the key build isn't known here\nhint: programs are run as they are"),
        ("volumes: [a:/b]", "services.web.volumes: the key volumes isn't known here\nhint: programs see this host's"),
        ("networks: [a]", "services.web.networks: the key networks isn't known here\nhint: apps reach each other by"),
        ("entrypoint: x", "services.web.entrypoint: the key entrypoint isn't known here\nhint: write the whole"),
        ("depend_on: [a]", "services.web.depend_on: the key depend_on isn't known here\nhint: is depends_on meant?"),
        ("zzz: 1", "services.web.zzz: the key zzz isn't known here\nhint: extensions begin with x-"),
        ("scale: -1", "services.web.scale: expected a whole number >= 0"),
        ("scale: many", "services.web.scale: expected a whole number, got a text"),
        ("scale: [1]", "services.web.scale: expected a whole number, got a list"),
        ("profiles: [a, 1]", "services.web.profiles.1: expected a text, got a whole number"),
        ("profiles: a", "services.web.profiles: expected a list, got a text"),
        ("healthcheck: {retries: 0}", "services.web.healthcheck.retries: expected a whole number >= 1"),
        ("deploy: {mode: x}", "services.web.deploy.mode: the key mode isn't known here"),
        ("x-appswitch: {ip: 1}", "services.web.x-appswitch.ip: expected a text, got a whole number"),
        ("x-appswitch: {p: 1}", "services.web.x-appswitch.p: the key p isn't known here"),
        ("depends_on: {a: {}, b: {condition: up}}", "services.web.depends_on.b.condition: invalid enum value 'up'"),
        ("depends_on: {a: }", "services.web.depends_on.a: expected a mapping, got nothing"),
        ("ports: [{published: 1}]", "services.web.ports.0: the key target is missing"),
        ("environment: {A: [1]}", "services.web.environment.A: expected"),
    ],
)
def test_an_error_says_line_and_key(line: str, message: str) -> None:
    assert refused(f"{WEB}    {line}\n").startswith(f"c.yaml:4: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.yaml:1: expected a mapping, got nothing"),
        ("[]", "c.yaml:1: expected a mapping, got a list"),
        ("name: x\n", "c.yaml:1: the key services is missing"),
        ("services:\n  web:\n", "c.yaml:2: services.web: expected a mapping, got nothing"),
        ("services:\n  web: {}\n", "c.yaml:2: services.web: the key command is missing\nhint: programs are run"),
        ("services: {}\nvolumes: {}\n", "c.yaml:2: volumes: the key volumes isn't known here\nhint: programs see"),
        ("services: {}\nnetworks: {}\n", "c.yaml:2: networks: the key networks isn't known here\nhint: apps reach"),
    ],
)
def test_an_error_of_the_whole(text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_the_right_one_of_several_is_named() -> None:
    """Msgspec names neither the service nor the dependency."""
    bad = "depends_on:\n      fine: {}\n      bad: {condition: up}\n"
    text = f"services:\n  a:\n    command: x\n  b:\n    command: x\n    {bad}  c:\n    command: x\n    {bad}"
    assert refused(text).startswith("c.yaml:8: services.b.depends_on.bad.condition: ")


def test_numbers_may_come_from_variables() -> None:
    text = WEB + "    scale: $N\n    depends_on: {db: {required: $R}}\n  db: {command: y}"
    web = understood(text, {"N": "3", "R": "false"}).services["web"]
    assert (web.scale, web.dependencies[0].required) == (3, False)


def test_hints_are_for_keys_that_are_not_there() -> None:
    known = {name for part in (file.File, file.Service, file.Deploy) for name in part.__struct_encode_fields__}
    assert set(file.INSTEAD) & known == set()


def test_the_published_schema_is_that_of_the_types() -> None:
    """`python -m appswitch.compose.schema > docs/compose.schema.json` makes it."""
    assert (DOCUMENT / "compose.schema.json").read_text() == schema.text()


def test_the_schema_knows_what_files_may_have() -> None:
    definitions = json.loads(schema.text())["$defs"]
    assert definitions["Service"]["required"] == ["command"]
    assert definitions["Service"]["additionalProperties"] is False
    assert definitions["Service"]["patternProperties"] == {"^x-": {}}
    assert list(definitions["Service"]["properties"]) == list(file.Service.__struct_encode_fields__)


def test_the_page_names_every_key() -> None:
    page = (DOCUMENT / "compose.md").read_text()
    parts = (file.File, file.Service, file.ServiceExtension, file.Healthcheck, file.Dependency, file.EnvFile)
    for part in parts:
        for name in part.__struct_encode_fields__:
            assert f"`{name}" in page, name
