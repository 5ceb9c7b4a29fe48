"""`appswitch observe` beside real programs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.harness import Switch, eventually

PYTHON = sys.executable
Row = dict[str, Any]

CONNECTS = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 8000)) as s:
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while s.recv(65536): pass
"""


class Observer:
    """`observe -f --json FLAGS`, known to be following."""

    def __init__(self, switch: Switch, *flags: str) -> None:
        self.process = switch._popen(
            [*switch.appswitch, "observe", "-f", "--json", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def rows(self) -> Iterator[Row]:
        assert self.process.stdout
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, kind: str, **fields: object) -> list[Row]:
        """The events up to the first one like this."""
        seen = []
        for row in self.rows():
            seen.append(row)
            if row["kind"] == kind and all(row[key] == value for key, value in fields.items()):
                return seen
        raise AssertionError(f"it ended after {seen}")

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


Observe = Callable[..., Observer]


@pytest.fixture
def observe(switch: Switch) -> Iterator[Observe]:
    """Starts observers: `observe(FLAGS)`."""
    with ExitStack() as stack:
        yield lambda *flags: stack.enter_context(closing(Observer(switch, *flags)))


@pytest.fixture
def web(switch: Switch) -> Switch:
    """A web server whose start an observer sees."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-m", "http.server", "8000", "--bind", "10.9.9.1")
    switch.wait_for("web:8000")
    return switch


def test_every_connect_of_a_process_shows(web: Switch, observe: Observe) -> None:
    observer = observe()
    observer.until("listen", name="web")
    web.run("--name", "client", "--ip", "10.9.9.2", PYTHON, "-c", CONNECTS, "10.9.9.1", "50")
    seen = observer.until("app-end", name="client")
    connects = [row for row in seen if row["kind"] == "connect" and row["name"] == "client"]
    assert len(connects) == 50
    assert {(row["ip"], row["server_name"], row["server_ip"], row["address"], row["port"], row["proto"], row["medium"])
            for row in connects} == {("10.9.9.2", "web", "10.9.9.1", "10.9.9.1", 8000, "tcp", "unix")}  # fmt: skip
    assert observer.interrupt() == -signal.SIGINT


def test_a_process_that_connects_by_capability_asks_again_once_somebody_observes(web: Switch, observe: Observe) -> None:
    """And only while somebody does."""
    code = f"{CONNECTS}\nfor line in sys.stdin:\n    exec({CONNECTS!r}); print('done', flush=True)"
    client = web.spawn("--name", "client", PYTHON, "-c", code, "10.9.9.1", "20",
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None)  # fmt: skip
    assert client.stdin
    assert client.stdout

    def connect_20_times() -> None:
        assert client.stdin
        assert client.stdout
        client.stdin.write("again\n")
        client.stdin.flush()
        assert client.stdout.readline() == "done\n"

    def seen() -> int:
        lines = web.command("observe", "--json", "--kind", "connect", "--app", "client").stdout.splitlines()
        return len(lines)

    connect_20_times()
    unseen = seen()
    assert unseen < 5, "capabilities are in use"
    elsewhere = observe("--kind", "listen")
    elsewhere.until("listen", name="web")
    connect_20_times()
    assert seen() == unseen, "it is no observer of connects"
    observer = observe()
    observer.until("app", name="client")
    connect_20_times()
    assert seen() == unseen + 20
    observer.interrupt()
    eventually(lambda: unobserved(web))
    before = seen()
    connect_20_times()
    connect_20_times()
    assert seen() < before + 5
    client.communicate(timeout=30)


def unobserved(switch: Switch) -> bool:
    """Whether two connects of one process to one place are one event, or fewer."""
    done = switch.run("--name", "probe", PYTHON, "-c", CONNECTS, "10.9.9.1", "9")
    assert done.returncode == 0
    rows = switch.command("observe", "--json", "--kind", "connect", "--app", "probe", "--tail", "9").stdout
    apps = Counter(json.loads(line)["app"] for line in rows.splitlines())
    return list(apps.values())[-1] < 9


@pytest.mark.program("curl", "dig")
def test_what_programs_do_shows(web: Switch, observe: Observe) -> None:
    web.spawn("--name", "db", "--ip", "10.9.9.3", "--tag", "grp=data", PYTHON, "-m", "http.server", "5432")
    web.wait_for("db:5432")
    observer = observe()
    seen = [row for row in observer.until("listen", name="db") if row["kind"] != "resolve"]  # http.server asks its name
    assert [row["kind"] for row in seen] == ["app", "listen", "app", "listen"]
    assert seen[2]["command"] == [PYTHON, "-m", "http.server", "5432"]
    assert seen[3] | {"time": ""} == dict.fromkeys(seen[3]) | {
        "time": "", "kind": "listen", "node": "n1", "app": 2, "app_node": "n1", "name": "db", "ip": "10.9.9.3",
        "address": "0.0.0.0", "port": 5432, "proto": "tcp", "answer": [], "command": [],
    }  # fmt: skip

    def of(*command: str) -> dict[str, Row]:
        """What a program's events are, by kind."""
        web.run("--name", "c", *command, check=False)
        return {row["kind"]: row for row in observer.until("app-end", name="c") if row["name"] == "c"}

    events = of("curl", "-s", "http://web:8000/")
    assert events["connect"]["server_name"] == "web"
    assert (events["resolve"]["query"], events["resolve"]["answer"][:1]) in (("web", ["10.9.9.1"]), ("web", []))
    denied = of("curl", "-s", "http://10.9.9.3:5432/")["deny"]
    assert (denied["address"], denied["port"], denied["errno"]) == ("10.9.9.3", 5432, "ECONNREFUSED")
    assert (denied["rule"], denied["server_name"]) == ("grp", "db")
    refused = of("curl", "-s", "http://10.9.9.1:81/")["refuse"]
    assert (refused["port"], refused["errno"]) == (81, "ECONNREFUSED")
    assert of("curl", "-s", "http://192.0.2.1/")["refuse"]["errno"] == "ENETUNREACH"
    resolved = of("dig", "+short", "db")["resolve"]
    assert (resolved["query"], resolved["qtype"], resolved["answer"]) == ("db", "A", ["10.9.9.3"])
    assert of("dig", "nothing.appswitch.local", "AAAA")["resolve"]["reason"] == "NXDOMAIN"
    assert of("dig", "+tcp", "db", "AAAA")["resolve"]["reason"] == "NODATA"
    bind = "import socket; socket.create_server(('10.9.9.99', 1))"
    assert of(PYTHON, "-c", bind)["bind-refused"]["errno"] == "EADDRNOTAVAIL"
    no_netns = "import socket; socket.create_connection(('web', 8000))"
    events = of("--no-netns", PYTHON, "-c", no_netns)
    assert (events["resolve"]["query"], events["resolve"]["answer"]) == ("web", ["10.9.9.1"])
    assert events["connect"]["server_name"] == "web"


def test_lines_for_people(web: Switch) -> None:
    web.run("--name", "c", "--ip", "10.9.9.2", PYTHON, "-c", CONNECTS, "10.9.9.1", "1")
    lines = [" ".join(line.split()[1:]) for line in web.command("observe").stdout.splitlines()]
    assert "listen web (10.9.9.1) 10.9.9.1:8000/tcp" in lines
    assert any(line.startswith("connect c (10.9.9.2) -> web 10.9.9.1:8000/tcp unix") for line in lines)
    assert any(line.startswith(f"app c (10.9.9.2) {PYTHON} -c import socket, sys for _ in") for line in lines)
    assert web.command("observe", "--kind", "listen", "-n", "1").stdout.count("\n") == 1
    assert web.command("observe", "-n", "0").stdout == ""


def test_the_trap_handler_goes(web: Switch, observe: Observe) -> None:
    observer = observe()
    observer.until("listen", name="web")
    web.server.terminate()
    _, said = observer.process.communicate(timeout=30)
    assert observer.process.returncode == 1
    assert "closed the connection" in said
    assert "Traceback" not in said


def test_a_reader_that_stops_reading_slows_nobody(web: Switch, observe: Observe) -> None:
    """Its events pile up to a bound, the others go on; then it reads on and learns how many it lost."""
    observer = observe()
    observer.until("listen", name="web")
    code = "import socket\nfor _ in range(12000):\n    s = socket.socket(); s.connect_ex(('10.9.9.1', 81)); s.close()"
    web.run("--name", "client", PYTHON, "-c", code, timeout=90)
    kinds: Counter[str] = Counter()
    for row in observer.rows():
        kinds[row["kind"]] += row["count"] or 1
        if kinds["refuse"] + kinds["lost"] >= 12000:
            break
    assert kinds["lost"] > 0
