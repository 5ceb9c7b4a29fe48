"""LD_PRELOAD without the wrapper: no namespace, no privilege; an ordinary user's trap handler and programs."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from appswitch.host.paths import shim_path
from tests.harness import PATIENCE, Switch, eventually, running_switch

USER = 65534 if os.geteuid() == 0 else None
SERVER = """
import socket, sys
s = socket.create_server((sys.argv[2] if len(sys.argv) > 2 else "", 8000))
while True:
    c, peer = s.accept()
    c.sendall(f"{sys.argv[1]} {peer[0]} {c.getsockname()[0]}\\n".encode())
    c.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 8000), timeout=20) as s:
        print(s.makefile().read(), end="")
"""


@pytest.fixture
def ordinary() -> Iterator[Switch]:
    """An ordinary user's trap handler."""
    with running_switch(user=USER) as running:
        yield running


def environment(switch: Switch, settings: dict[str, str]) -> dict[str, str]:
    variables = {f"APPSWITCH_{key.upper()}": value for key, value in settings.items()}
    return {**switch.environment, "LD_PRELOAD": str(shim_path()), **variables}


def start(switch: Switch, *command: str, **settings: str) -> subprocess.Popen[str]:
    """A program in the background; settings: name, ip, tags."""
    return switch._popen([*command], env=environment(switch, settings), stdout=subprocess.DEVNULL, stderr=None)


def run(switch: Switch, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A program, to its end."""
    return subprocess.run(
        command, env=environment(switch, settings), timeout=PATIENCE, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, **switch._as_user(),
    )  # fmt: skip


def serve(switch: Switch, text: str, *bound: str, **settings: str) -> None:
    """A server that says `text` and who it talks to."""
    count = len(switch.rows("services"))
    start(switch, python(switch), "-c", SERVER, text, *bound, **settings)
    eventually(lambda: len(switch.rows("services")) > count)


def ask(switch: Switch, host: str, count: int = 1, **settings: str) -> list[str]:
    """What the server says, or how it fails."""
    done = run(switch, python(switch), "-c", CLIENT, host, str(count), **settings)
    return done.stdout.splitlines() or done.stderr.splitlines()[-1:]


def python(switch: Switch) -> str:
    """The interpreter that the user may run."""
    return switch.appswitch[0]


def apps(switch: Switch) -> dict[str | None, dict[str, Any]]:
    return {row["name"]: row for row in switch.rows("ps")}


def test_the_variables_say_who_a_program_is(ordinary: Switch) -> None:
    serve(ordinary, "web", name="web", ip="10.9.9.1", tags="grp=1,grp=2,stage=test")
    web = apps(ordinary)["web"]
    assert (web["ip"], web["tags"], web["netns"]) == ("10.9.9.1", ["grp=1", "grp=2", "stage=test"], False)
    assert web["command"] == [python(ordinary), "-c", SERVER, "web"]
    assert ask(ordinary, "web", ip="10.9.9.2", tags="grp=2") == ["web 10.9.9.2 10.9.9.1"]
    assert ask(ordinary, "10.9.9.1", ip="10.9.9.2", tags="x=y,grp=1") == ["web 10.9.9.2 10.9.9.1"]


@pytest.mark.parametrize("settings", [{"name": "one"}, {"ip": "10.9.9.1"}, {"tags": "a=b"}, {}], ids=str)
def test_each_variable_alone(ordinary: Switch, settings: dict[str, str]) -> None:
    serve(ordinary, "one", **settings)
    (app,) = ordinary.rows("ps")
    assert app["name"] == settings.get("name")
    assert app["tags"] == ([settings["tags"]] if "tags" in settings else [])
    if "name" in settings or "ip" in settings:
        clients: list[dict[str, str]] = [{"ip": "10.9.9.2"}, {"name": "client"}, {"tags": "c=d"}, {}]
        for client in clients:
            (said,) = ask(ordinary, app["ip"], 1, **client)
            assert said.startswith("one ")
            assert said.endswith(app["ip"])
    else:
        assert "unreachable" in ask(ordinary, app["ip"])[0].lower(), "a client alone can't be reached"


def test_groups_and_balancing(ordinary: Switch) -> None:
    for number in range(2):
        serve(ordinary, f"server{number}", name="web", tags="grp=a")
    counts = Counter(line.split()[0] for line in ask(ordinary, "web.appswitch.local", 20, tags="grp=b,grp=a"))
    assert counts == {"server0": 10, "server1": 10}
    assert "refused" in ask(ordinary, "web", tags="grp=b")[0]


@pytest.mark.parametrize(("bound", "family"), [("127.0.0.1", 4), ("::1", 6)])
def test_siblings_by_loopback(ordinary: Switch, bound: str, family: int) -> None:
    code = SERVER.replace(", 8000))", f", 8000), family=socket.AF_INET{'6' if family == 6 else ''})")
    start(ordinary, python(ordinary), "-c", code, "inside", bound, ip="10.9.9.1")
    eventually(lambda: ordinary.rows("services"))
    assert ask(ordinary, bound, ip="10.9.9.1", name="other") == [f"inside {bound} {bound}"]
    assert "refused" in ask(ordinary, bound, ip="10.9.9.2")[0]
    assert "refused" in ask(ordinary, "10.9.9.1", ip="10.9.9.2")[0]


def test_children_are_the_same_app(ordinary: Switch) -> None:
    """By fork, by exec, and by exec without an environment."""
    script = """
        "$0" -c "$1" parent & server=$!
        until out=$("$0" -c "$2" 127.0.0.1 1 2>/dev/null); do :; done; echo "$out"
        env -i "$0" -c "$2" web 1
        "$0" -c "import os, sys; os.fork() or os.execv(sys.argv[1], sys.argv[1:]); os.wait()" "$0" -c "$2" 10.9.9.1 1
        kill $server
    """
    settings = {"name": "web", "ip": "10.9.9.1"}
    done = run(ordinary, "sh", "-c", script, python(ordinary), SERVER, CLIENT, **settings)
    here = ["parent 127.0.0.1 127.0.0.1", "parent 10.9.9.1 10.9.9.1", "parent 10.9.9.1 10.9.9.1"]
    assert done.stdout.splitlines() == here, done
    seen = ordinary.command("observe", "--json").stdout.splitlines()
    assert len({row["app"] for row in map(json.loads, seen)}) == 1


def test_a_tree_without_name_and_address_has_its_own_loopback(ordinary: Switch) -> None:
    """Its first process makes no call of the network itself."""
    script = """"$0" -c "$1" inside & server=$!
        until out=$("$0" -c "$2" 127.0.0.1 1 2>/dev/null); do :; done; echo "$out"; kill $server"""
    done = run(ordinary, "sh", "-c", script, python(ordinary), SERVER, CLIENT)
    assert done.stdout == "inside 127.0.0.1 127.0.0.1\n"


def test_a_program_that_needs_no_network_needs_no_trap_handler(ordinary: Switch) -> None:
    ordinary.server.terminate()
    ordinary.server.wait(PATIENCE)
    done = run(ordinary, "echo", "fine", name="x")
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert "no trap handler answers" in run(ordinary, python(ordinary), "-c", CLIENT, "10.9.9.1", "1").stderr


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"ip": "10.9.9.300"}, "'10.9.9.300' is not an IP address"),
        ({"ip": "127.0.0.1"}, "127.0.0.1 can't be a virtual IP"),
        ({"name": "a b"}, "'a b' can't be an app's name"),
        ({"tags": "grp"}, "'grp' is not a tag"),
        ({"tags": "k=" + "v" * 2000}, "too long"),
        ({"name": "web", "ip": "10.9.9.2"}, "the name web stands for 10.9.9.1 already"),
    ],
)
def test_variables_that_are_wrong(ordinary: Switch, settings: dict[str, str], why: str) -> None:
    serve(ordinary, "web", name="web", ip="10.9.9.1")
    done = run(ordinary, python(ordinary), "-c", CLIENT, "10.9.9.1", "1", **settings)
    assert "appswitch: this program has no network: " in done.stderr
    assert why in done.stderr
    assert "hint: look at the APPSWITCH_ variables" in done.stderr
    assert "PermissionError" in done.stderr
    assert done.stdout == ""
    assert list(apps(ordinary)) == ["web"]


@pytest.mark.program("redis-server", "redis-cli", "curl")
def test_real_programs(ordinary: Switch) -> None:
    start(ordinary, "redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp", name="cache")
    start(ordinary, python(ordinary), "-m", "http.server", "80", "--directory", "/usr/share/doc/bash", name="web")
    ordinary.wait_for("cache:6379", "web:80")
    assert run(ordinary, "redis-cli", "-h", "cache", "ping").stdout == "PONG\n"
    assert "copyright" in run(ordinary, "curl", "-sS", "http://web/").stdout
    assert "copyright" in run(ordinary, "curl", "-sS", "http://web.appswitch.local:80/", ip="10.9.9.2").stdout
