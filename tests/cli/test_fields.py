"""docs/cli.md says which fields each command prints; here is whether it does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appswitch.cli.observe import line_of
from appswitch.model import Event, Kind
from appswitch.wire import control
from tests.harness import Switch, running_switch

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cli.md"
SERVE = "import socket; s = socket.create_server(('', 8000)); kept = [s.accept() for _ in range(9)]"
LISTS = ["ps", "services", "connections", "nodes", "resolve", "external list", "doctor"]


def sections() -> dict[str, str]:
    """The text under each command's heading."""
    _, *parts = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    return {part.split("\n", 1)[0]: part for part in parts}


def documented(command: str) -> list[str]:
    """Its fields, in the order of the table."""
    return re.findall(r"^\| (\w+) \|", sections()[command], flags=re.MULTILINE)[1:]


@pytest.fixture(scope="module")
def busy() -> Iterator[Switch]:
    """Something for each list to show."""
    with running_switch() as switch:
        switch.spawn("--name", "web", "--ip", "10.9.9.1", sys.executable, "-c", SERVE)
        switch.wait_for("web:8000")
        switch.command("external", "add", "db", "5432:db.example:5432")
        connect = (
            "import socket, time; s = socket.create_connection(('web', 8000)); print(1, flush=True); time.sleep(60)"
        )
        client = switch.spawn("--name", "client", sys.executable, "-c", connect, stdout=-1)
        assert client.stdout
        assert client.stdout.readline() == "1\n"
        client.stdout.close()
        yield switch


def rows_of(switch: Switch, command: str) -> list[dict[str, Any]]:
    arguments = {"resolve": ["web"], "why": ["client", "web:8000"]}.get(command, [])
    done = switch.command(*command.split(), *arguments, "--json", check=command != "doctor")
    if command == "observe":
        return [json.loads(line) for line in done.stdout.splitlines()]
    printed = json.loads(done.stdout)
    return [printed] if command == "why" else list(printed)


def test_every_command_that_prints_is_documented() -> None:
    assert list(sections()) == [*LISTS[:-1], "why", "observe", "doctor"]


@pytest.mark.parametrize("command", [*LISTS, "why", "observe"])
def test_fields(busy: Switch, command: str) -> None:
    rows = rows_of(busy, command)
    assert rows
    for row in rows:
        assert list(row) == documented(command)


def test_fields_of_candidates(busy: Switch) -> None:
    (answer,) = rows_of(busy, "why")
    (line,) = re.findall(r"^\| candidates \| a list of objects: (.*) \|", sections()["why"], flags=re.MULTILINE)
    assert list(answer["candidates"][0]) == line.split(", ")


def test_kinds() -> None:
    (text,) = re.findall(r"^Kinds: .*?\n\n", sections()["observe"], flags=re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r"`([a-z-]+)`", text)) == sorted(kind.value for kind in Kind)


@pytest.mark.parametrize("command", LISTS)
def test_the_ways_to_print(busy: Switch, command: str) -> None:
    arguments = [command, "web"] if command == "resolve" else command.split()

    def printed(*flags: str) -> str:
        return busy.command(*arguments, *flags, check=command != "doctor").stdout

    assert [list(row) for row in json.loads(printed("-o", "json"))] == [list(row) for row in rows_of(busy, command)]
    wide = printed("-o", "wide").splitlines()
    assert [each.lower() for each in wide[0].split()] == [
        field
        for field in documented(command)
        if (command, field) != ("doctor", "hint")  # it has lines of its own
    ]
    headed, bare = printed().splitlines(), printed("--no-headers").splitlines()
    assert len(headed) == len(bare) + 1
    assert headed[0].isupper()


def test_a_line_about_another_host() -> None:
    row = control.event_row(Event(0.0, Kind.NODE, "a", reason="b is suspect"))
    assert line_of(row).split()[1:] == ["node", "b", "is", "suspect"]
