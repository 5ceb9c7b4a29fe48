"""`serve --http` as curl and Prometheus see it, with real programs behind it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import parser

from tests.harness import Switch, Talker, eventually, free_port, running_switch

pytestmark = pytest.mark.program("curl")

SERVE = """
import socket
s = socket.create_server(("", 8000), backlog=1000)
while True:
    s.accept()[0].close()
"""
CONNECT = """
import os, socket, sys, threading
def connect(times):
    for _ in range(times):
        socket.create_connection(("web", 8000)).close()
connect(10)
children = [os.fork() for _ in range(2)]
if 0 in children:
    connect(100)
    os._exit(0)
threads = [threading.Thread(target=connect, args=[100]) for _ in range(3)]
for each in threads: each.start()
for each in threads: each.join()
for each in children: os.waitpid(each, 0)
"""
CONNECTS = 10 + 3 * 100 + 3 * 100  # the first child forks once more
ON_DEMAND = """
import socket, sys
for line in sys.stdin:
    for _ in range(int(line)):
        socket.create_connection(("web", 8000)).close()
    print("done", flush=True)
"""


class Shown:
    """A trap handler with a map."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch

    @property
    def url(self) -> str:
        return str(re.findall(r"url=(http://\S+)/", self.switch.log.read_text())[-1])

    def curl(self, path: str, *arguments: str) -> str:
        command = ["curl", "-sS", "--max-time", "20", *arguments, f"{self.url}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr, self.switch.logs())
        return done.stdout

    def status(self, path: str, *arguments: str) -> int:
        return int(self.curl(path, "-o", "/dev/null", "-w", "%{http_code}", *arguments))

    def json(self, path: str) -> Any:
        return json.loads(self.curl(path))

    def metric(self, name: str, **labels: str) -> float:
        """Their sum, over those that have these labels."""
        families = parser.text_string_to_metric_families(self.curl("/metrics"))
        samples = [each for family in families for each in family.samples if each.name == name]
        return sum(each.value for each in samples if labels.items() <= each.labels.items())

    def flow(self, client: str) -> dict[str, Any]:
        flows = self.json("/api/state")["flows"]
        return next((each for each in flows if each["client"]["name"] == client and each["server"]["name"]), {})


@contextmanager
def showing(*flags: str) -> Iterator[Shown]:
    with running_switch("--http", *flags) as switch:
        shown = Shown(switch)
        eventually(lambda: "url=" in switch.log.read_text())
        yield shown


@pytest.fixture
def shown() -> Iterator[Shown]:
    with showing("127.0.0.1:0") as shown:
        yield shown


@pytest.fixture
def busy(shown: Shown) -> Shown:
    """Something serves."""
    shown.switch.spawn("--name", "web", sys.executable, "-c", SERVE)
    shown.switch.wait_for("web:8000")
    return shown


def test_every_connect_is_counted_once(busy: Shown) -> None:
    """Of threads and of forked processes, by the trap handler and by capability."""
    busy.switch.run("--name", "client", sys.executable, "-c", CONNECT)
    assert busy.metric("appswitch_connects_total", verdict="allow") == CONNECTS
    asked = busy.metric("appswitch_traps_total", call="connect", result="ok")
    assert asked == busy.metric("appswitch_connect_duration_seconds_count")
    assert asked < CONNECTS / 2  # the others have not asked
    eventually(lambda: busy.flow("client"))  # the state isn't made more often than once a second
    flow = busy.flow("client")
    assert (flow["connects"], flow["medium"], flow["denied"]) == (CONNECTS, "unix", 0)
    assert flow["rate"] > 1


def test_while_somebody_observes_they_are_counted_once_too(busy: Shown) -> None:
    command = [*busy.switch.appswitch, "observe", "-f"]
    observer = subprocess.Popen(command, env=busy.switch.environment, stdout=subprocess.PIPE)
    try:
        assert observer.stdout
        observer.stdout.readline()
        busy.switch.run("--name", "client", sys.executable, "-c", CONNECT)
        assert busy.metric("appswitch_connects_total", verdict="allow") == CONNECTS
        assert busy.metric("appswitch_traps_total", call="connect", result="ok") == CONNECTS
    finally:
        observer.send_signal(signal.SIGKILL)
        observer.communicate()


def test_a_program_that_goes_on_over_a_restart(busy: Shown) -> None:
    """The new trap handler begins to count at 0; what it counts is right."""
    switch = busy.switch
    client = Talker(switch, "--name", "client", sys.executable, "-c", ON_DEMAND)

    def connect(times: int) -> None:
        assert client.ask(str(times)) == "done", switch.logs()

    connect(50)
    assert busy.metric("appswitch_connects_total", verdict="allow") == 50
    before = busy.url
    switch.kill_server()
    switch.serve("--http", "127.0.0.1:0")
    eventually(lambda: busy.url != before)
    switch.wait_for("web:8000")
    eventually(lambda: busy.metric("appswitch_instances") == 1)
    connect(10)  # until it has asked anew
    known = busy.metric("appswitch_connects_total", verdict="allow")
    connect(70)
    assert busy.metric("appswitch_connects_total", verdict="allow") == known + 70
    assert busy.metric("appswitch_traps_total", call="connect", result="ok") < 20


def test_denied_and_refused(shown: Shown) -> None:
    switch = shown.switch
    switch.spawn("--name", "web", "--tag", "grp=1", sys.executable, "-c", SERVE)
    switch.wait_for("web:8000")
    for port in (8000, 81):
        switch.run("--name", "client", "curl", "-s", f"http://web:{port}/", check=False)
    assert shown.metric("appswitch_connects_total", verdict="deny", medium="none") == 1
    assert shown.metric("appswitch_connects_total", verdict="refuse", medium="none") == 1
    assert shown.metric("appswitch_dns_queries_total", rcode="NOERROR") >= 2
    flow = shown.flow("client")
    assert (flow["denied"], flow["rule"], flow["connects"]) == (1, "grp", 0)


def test_the_state_is_what_the_commands_print(busy: Shown) -> None:
    state, switch = busy.json("/api/state"), busy.switch
    for name in ("ps", "services", "nodes"):
        assert state["apps" if name == "ps" else name] == switch.rows(name)
    assert [each["name"] for each in state["apps"]] == ["web"]
    why = json.loads(switch.command("why", "web", "web:8000", "--json").stdout)
    assert busy.json("/api/why?client=web&dest=web:8000") == why
    assert busy.json("/api/app/1")["services"] == switch.rows("services")


def test_events(busy: Shown) -> None:
    reader = subprocess.Popen(["curl", "-sSN", f"{busy.url}/api/events?kind=app"], stdout=subprocess.PIPE, text=True)
    try:
        assert reader.stdout
        assert reader.stdout.readline().startswith("retry:")
        busy.switch.run("--name", "shortly", "true")
        lines = iter(reader.stdout.readline, "")
        told = next(json.loads(line.removeprefix("data: ")) for line in lines if '"kind"' in line)
        assert (told["kind"], told["name"]) == ("app", "shortly")
    finally:
        reader.kill()
        reader.communicate()


def test_health_methods_and_hosts(shown: Shown) -> None:
    assert shown.json("/healthz")["status"] == "ok"
    assert shown.status("/metrics") == 200
    assert shown.status("/metrics", "-I") == 200
    assert shown.status("/metrics", "-X", "POST") == 405
    assert shown.status("/metrics", "-d", "abc") == 413
    assert shown.status("/metrics", "-H", "Host: evil.example") == 421
    assert shown.status("/no-such") == 404
    assert shown.status("/api/app/none") == 404
    assert shown.status("/static/../serve.py", "--path-as-is") == 404


def test_where_others_reach_it_a_token_is_needed(tmp_path: Any) -> None:
    with showing("0.0.0.0:0") as shown:
        said = shown.switch.log.read_text()
        file = next((shown.switch.directory).glob("**/http-token"))
        token = file.read_text().strip()
        assert file.stat().st_mode & 0o777 == 0o600
        assert str(file) in said
        assert token not in said
        assert shown.status("/api/state") == 401
        assert shown.status("/api/state", "-H", "Authorization: Bearer wrong") == 401
        assert shown.status("/api/state", "-H", f"Authorization: Bearer {token}", "-H", "Host: map.example") == 200
        assert shown.status("/healthz") == 200
        jar = str(tmp_path / "jar")
        assert shown.status(f"/api/state?token={token}", "-L", "-c", jar) == 200
        assert shown.status("/api/state", "-b", jar) == 200


def test_over_ipv6() -> None:
    with showing("[::1]:0") as shown:
        assert shown.url.startswith("http://[::1]:")
        assert shown.json("/healthz")["status"] == "ok"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("8080", "'8080' is not ADDR:PORT"),
        ("127.0.0.1:{taken}", "Address already in use"),
        ("192.0.2.1:80", "192.0.2.1"),
    ],
)
def test_a_port_that_cant_be_had(tmp_path: Any, place: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = place.format(taken=taken.getsockname()[1])
        switch = Switch(tmp_path)
        done = switch.command("serve", "--http", place, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "hint:" in done.stderr
    assert not switch.trap.exists()


@pytest.mark.program("serf")
def test_health_while_joining() -> None:
    """The other host isn't there."""
    own, other = free_port(), free_port()
    with showing("127.0.0.1:0", "--bind", f"127.0.0.1:{own}", "--join", f"127.0.0.1:{other}") as shown:
        assert shown.status("/healthz") == 503
        assert shown.json("/healthz")["reason"].startswith("joining")


def test_without_it_nothing_of_it_is_loaded() -> None:
    code = "import sys, appswitch.server; print([each for each in ('h11', 'prometheus_client') if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
