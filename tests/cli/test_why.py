"""`appswitch why`, beside what really comes of the connect."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Switch, eventually, running_switch

PYTHON = sys.executable
POLICY = """
[[rule]]
name = "admin-only"
action = "deny"
from = { name = "web" }
to = { name = "db", port = 81 }
"""
SERVER = """
import selectors, socket
with selectors.DefaultSelector() as ready:
    for port in (80, 81):
        ready.register(socket.create_server(("", port)), selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            key.fileobj.accept()[0].close()
"""
CLIENT = """
import socket, sys
for address in sys.stdin:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port))).close()
        print("in", flush=True)
    except OSError as error:
        print("out", flush=True)
"""


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """The app db (1) serves ports 80 and 81; web (2) may reach the first, other (3) neither."""
    file: Path = tmp_path_factory.mktemp("policy") / "policy.toml"
    file.write_text(POLICY)
    with running_switch("--policy", str(file)) as switch:
        switch.spawn("--name", "db", "--ip", "10.9.9.1", "--tag", "grp=1", "--tag", "grp=2", PYTHON, "-c", SERVER)
        switch.wait_for("db:80", "db:81")
        for name, group in (("web", "2"), ("other", "3")):
            switch.spawn("--name", name, "--tag", f"grp={group}", PYTHON, "-c", SERVER)
            switch.wait_for(f"{name}:80")
        yield switch


@pytest.mark.parametrize(
    ("client", "dest", "verdict", "rule", "reason"),
    [
        ("web", "db:80", "allow", "grp", "the grp rule allows it: the client has grp=2, the server grp=1 grp=2"),
        ("web", "db:81", "deny", "admin-only", "rule admin-only denies it"),
        ("other", "db:80", "deny", "grp", "the grp rule denies it: the client has grp=3, the server grp=1 grp=2"),
        ("web", "db:82", "unreachable", None, "nothing listens on 10.9.9.1 port 82"),
        ("db", "localhost:81", "allow", "self", "an app reaches itself"),
    ],
)
def test_the_answer(policed: Switch, client: str, dest: str, verdict: str, rule: str | None, reason: str) -> None:
    allowed = verdict == "allow"
    done = policed.command("why", client, dest, "--json", check=False)
    assert done.returncode == (0 if allowed else 1)
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["allowed"], answer["rule"], answer["reason"]) == (verdict, allowed, rule, reason)
    assert (answer["client_name"], answer["dest"], str(answer["port"])) == (client, *dest.split(":"))
    assert all(each["allowed"] == allowed and each["node"] == "n1" for each in answer["candidates"])
    assert [each["name"] for each in answer["candidates"]] == ([] if verdict == "unreachable" else ["db"])

    tags = ["--tag", "grp=2"] if client == "web" else ["--tag", "grp=3"]
    if client != "db":  # and so it comes
        tried = policed.run("--name", client, *tags, PYTHON, "-c", CLIENT, input=f"{dest}\n").stdout
        assert tried == ("in\n" if allowed else "out\n")


def test_udp_is_another_port_space(policed: Switch) -> None:
    code = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 9000)); time.sleep(60)"
    policed.spawn("--name", "datagrams", "--tag", "grp=2", PYTHON, "-c", code)
    eventually(lambda: ("datagrams", "udp") in {(each["name"], each["proto"]) for each in policed.rows("services")})
    for client, dest, verdict in (
        ("2", "datagrams:9000/udp", "allow"),
        ("other", "datagrams:9000/udp", "deny"),
        ("2", "datagrams:9000", "unreachable"),
        ("2", "datagrams:9001/udp", "unreachable"),
    ):
        answer = json.loads(policed.command("why", client, dest, "--json", check=False).stdout)
        assert (answer["verdict"], answer["proto"]) == (verdict, "udp" if "udp" in dest else "tcp")


def test_for_people(policed: Switch) -> None:
    done = policed.command("why", "web", "db:81", check=False)
    assert done.stdout.splitlines() == [
        f"deny: web (app {policed.rows('ps')[0]['node']}/2) -> db (10.9.9.1) port 81/tcp",
        "rule: admin-only",
        "reason: rule admin-only denies it",
        "APP  NAME  NODE  ALLOWED  REASON",
        "1    db    n1    no       rule admin-only denies it",
    ]
    assert "TAGS" in policed.command("why", "2", "10.9.9.1:80", "-o", "wide").stdout
    assert "NODE" not in policed.command("why", "2", "10.9.9.1:80", "--no-headers").stdout


def test_a_client_that_several_apps_are(policed: Switch) -> None:
    def webs() -> list[int]:
        return [app["id"] for app in policed.rows("ps") if app["name"] == "web"]

    policed.spawn("--name", "web", "--tag", "grp=9", "sleep", "60")
    eventually(lambda: len(webs()) == 2)
    ids = webs()
    done = policed.command("why", "web", "db:80")
    assert f"this is for app {policed.rows('ps')[0]['node']}/{ids[0]}" in done.stderr
    assert policed.command("why", str(ids[0]), "db:80").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["web", "db"], 2, "'db' is not NAME:PORT"),
        (["web", "db:x"], 2, "is not NAME:PORT"),
        (["web", "db:80/sctp"], 2, "'sctp' is no protocol"),
        (["web", "nothing:80/udp"], 1, "no app is named 'nothing'"),
        (["web", "nothing:80"], 1, "no app is named 'nothing'"),
        (["nobody", "db:80"], 1, "there is no app 'nobody'"),
    ],
)
def test_questions_without_an_answer(policed: Switch, arguments: list[str], status: int, says: str) -> None:
    done = policed.command("why", *arguments, check=False)
    assert done.returncode == status
    assert says in done.stderr
    assert "hint: " in done.stderr
    assert done.stdout == ""
