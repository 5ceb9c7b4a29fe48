"""The examples that are Compose files do what their pages say: with one command, and nothing runs afterwards."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.harness import Switch, eventually, idle_switch

EXAMPLES = Path(__file__).parents[2] / "examples"


class Example:
    """One of them, under a trap handler that it starts by itself."""

    def __init__(self, name: str, switch: Switch) -> None:
        self.switch = switch
        self.file = EXAMPLES / name / "compose.yaml"
        self.ports: dict[str, int] = {}

    def up(self, data: str, *ports: str) -> None:
        """ports: the variables that choose one."""
        self.ports = {each: free_port() for each in ports}
        self.switch.environment[data] = str(self.switch.directory / "data")
        self.switch.environment.update({name: str(port) for name, port in self.ports.items()})
        self.compose("up", "--wait", "--wait-timeout", "60", timeout=100)

    def compose(self, *arguments: str, **options: float) -> str:
        done = self.switch.command("compose", *arguments, "--file", str(self.file), check=False, **options)
        assert done.returncode == 0, done.stderr + self.switch.logs()
        return done.stdout

    def spawn(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.switch.run(*arguments, check=False)

    def outside(self, port: str, path: str = "/", **form: str) -> str:
        """What a client outside gets."""
        body = urlencode(form).encode() if form else None
        answer: HTTPResponse
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[port]}{path}", body, timeout=20) as answer:
            return answer.read().decode()


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def needs(*modules: str) -> None:
    """Modules of Debian's Python, which the examples' programs run with."""
    done = subprocess.run(["/usr/bin/python3", "-c", f"import {','.join(modules)}"], check=False, capture_output=True)
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(done.stderr.decode())


@pytest.fixture
def switch() -> Iterator[Switch]:
    """Nothing runs yet, and nothing does in the end."""
    with idle_switch() as made:
        yield made
        for each in (made.directory / "compose").glob("*"):
            made.command("compose", "down", "--kill", "-p", each.name, check=False)
        eventually(lambda: not made.trap.exists())


@pytest.mark.program("nginx", "gunicorn", "psql", "redis-server", "curl")
def test_guestbook(switch: Switch) -> None:
    needs("flask", "psycopg2", "redis")
    example = Example("guestbook", switch)
    example.up("GUESTBOOK_DATA", "GUESTBOOK_PORT")
    assert {row["ip"] for row in switch.rows("ps")} == {"10.77.0.1"}
    assert "<b>Ann</b>: hello &lt;all&gt;" in example.outside("GUESTBOOK_PORT", name="Ann", said="hello <all>")
    pages = [example.spawn("--ip", "10.77.0.9", "curl", "-sS", "http://web/").stdout for _ in range(4)]
    assert all("<b>Ann</b>" in page and "from 10.77.0.9;" in page for page in pages)
    visits = [int(number) for page in pages for number in re.findall(r"Visit (\d+),", page)]
    assert visits == list(range(visits[0], visits[0] + 4))
    assert len({pid for page in pages for pid in re.findall(r"app (\d+) answers", page)}) == 2
    for place in ("app:8000", "database:5432", "cache:6379"):
        assert "Couldn't connect" in example.spawn("curl", "-sS", f"http://{place}/").stderr
    rows = {row["name"]: row for row in json.loads(example.compose("ps", "--json"))}
    assert {each["state"] for each in rows.values()} == {"healthy", "exited"}
    assert [name for name, row in rows.items() if row["exposed"]] == ["web-1"]
    example.compose("down")
    example.compose("up", "--wait", "--wait-timeout", "60", timeout=100)
    assert "<b>Ann</b>" in example.outside("GUESTBOOK_PORT")


@pytest.mark.program("node", "psql", "redis-server", "redis-cli", "curl")
def test_voting(switch: Switch) -> None:
    needs("psycopg2", "redis")
    example = Example("voting", switch)
    example.up("VOTING_DATA", "VOTE_PORT", "RESULT_PORT")
    assert "Cats or dogs?" in example.outside("VOTE_PORT")
    for vote in ("cats", "dogs", "dogs"):
        assert "Thank you" in example.outside("VOTE_PORT", vote=vote)
    eventually(lambda: json.loads(example.outside("RESULT_PORT", "/json")) == {"cats": 1, "dogs": 2})
    assert "Cats 1 : 2 Dogs" in example.outside("RESULT_PORT")
    front = ("--tag", "grp=front")
    assert example.spawn(*front, "curl", "-sS", "http://result/json").stdout == '{"cats":1,"dogs":2}'
    assert "refused" in example.spawn(*front, "redis-cli", "-h", "redis", "ping").stderr
    assert example.spawn("--tag", "grp=back", "redis-cli", "-h", "redis", "ping").stdout == "PONG\n"
    assert switch.command("why", "vote", "redis:6379").returncode == 0
    assert "votes for dogs" in example.compose("logs", "worker")
