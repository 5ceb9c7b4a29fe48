"""A trap handler that is killed, or stopped, and started again: no program is, and none notices."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_failover import nginx
from tests.e2e.test_real_programs import postgres_programs
from tests.harness import Switch, Talker, eventually, python_for, running_switch, stop

PYTHON = sys.executable
HELLO = """
import socket, sys
s = socket.create_server(("", 80))
while True:
    c, peer = s.accept()
    c.sendall(f"{sys.argv[1]} sees {peer[0]}".encode())
    c.close()
"""
DIALLER = """
import socket, sys
for line in sys.stdin:
    try:
        host, port = line.split()
        print(socket.create_connection((host, int(port))).recv(99).decode(), flush=True)
    except OSError as error:
        print(error.errno or error, flush=True)
"""
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5000))
while True:
    data, peer = s.recvfrom(99)
    s.sendto(data + f" from {peer[0]}".encode(), peer)
"""
ASKER = """
import socket, sys
connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connected.connect(("echo", 5000))
loose = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo = socket.gethostbyname("echo")
print("ready", flush=True)
for line in sys.stdin:
    connected.send(b"connected")
    loose.sendto(b"loose", (echo, 5000))
    print(connected.recv(99).decode(), loose.recv(99).decode(), flush=True)
"""


def restart(switch: Switch, *flags: str) -> None:
    switch.kill_server()
    switch.serve(*flags)


@pytest.fixture(params=[signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def end(request: pytest.FixtureRequest, switch: Switch) -> Callable[[], None]:
    """Ends the trap handler."""

    def do() -> None:
        switch.server.send_signal(request.param)
        switch.server.wait()

    return do


def rows(switch: Switch) -> dict[str, list[tuple[Any, ...]]]:
    """What there is, less the order."""
    apps = sorted(
        (row["id"], row["name"], row["ip"], *row["tags"], row["pid"], row["state"]) for row in switch.rows("ps")
    )
    services = sorted(
        (row["ip"], row["port"], row["proto"], row["app"], row["scope"]) for row in switch.rows("services")
    )
    return {"apps": apps, "services": services}


NETNS = pytest.mark.parametrize(
    "netns", [pytest.param([], marks=pytest.mark.root), ["--no-netns"]], ids=["netns", "no netns"]
)


@NETNS
def test_all_is_there_again(switch: Switch, end: Callable[[], None], netns: list[str]) -> None:
    switch.spawn(*netns, "--name", "web", "--ip", "10.9.9.1", "--tag", "x=1", PYTHON, "-c", HELLO, "web")
    switch.spawn(*netns, "--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    if not netns:
        switch.spawn("--name", "echo", PYTHON, "-c", ECHO)
        switch.wait_for("echo:5000")
    client = Talker(switch, *netns, "--name", "client", PYTHON, "-c", DIALLER)
    eventually(lambda: [row["name"] for row in switch.rows("services")].count("web") == 2)
    assert client.ask("web 80").startswith("web sees ")
    switch.command("drain", "1", "--no-wait")
    for _ in range(2):
        before = rows(switch)
        end()
        switch.serve()
        eventually(lambda before=before: rows(switch) == before)
        eventually(lambda: client.ask("web 80").startswith("web sees 100."))
        later = switch.run(*netns, PYTHON, "-c", DIALLER, input="web 80\n").stdout
        assert later.startswith("web sees 169.254.")
    late = switch.spawn(*netns, "--name", "late", PYTHON, "-c", HELLO, "late")
    switch.wait_for("late:80")
    assert next(row["id"] for row in switch.rows("ps") if row["name"] == "late") > max(
        each[0] for each in before["apps"]
    )
    assert client.ask("late 80").startswith("late sees 100.")
    stop(late)
    eventually(lambda: {row["name"] for row in switch.rows("ps")} == {each[1] for each in before["apps"]})


@pytest.mark.root
@pytest.mark.program("redis-server", "redis-cli")
def test_an_established_connection_goes_on(switch: Switch, end: Callable[[], None]) -> None:
    switch.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no")
    switch.wait_for("redis:6379")
    client = Talker(switch, "redis-cli", "-h", "redis")
    assert client.ask("set k v") == "OK"
    number = client.ask("client id")
    end()
    assert client.ask("incr without") == "1"
    switch.serve()
    assert client.ask("client id") == number
    address = client.ask(f"client list id {number}")
    eventually(lambda: any(row["server_name"] == "redis" for row in switch.rows("connections")))
    (row,) = switch.rows("connections")
    assert f"addr={row['client_ip']}:{row['client_port']} laddr={row['dest_ip']}:6379" in address
    assert switch.run("redis-cli", "-h", "redis", "get", "k").stdout == "v\n"


@pytest.mark.root
@pytest.mark.program("nginx", "wrk", "curl")
@pytest.mark.parametrize("flags", [[], ["-H", "Connection: close"]], ids=["kept", "a connection a request"])
def test_nginx_under_wrk(switch: Switch, flags: list[str]) -> None:
    for number in range(2):
        nginx(switch, number)
    wrk = switch.spawn("wrk", "-t", "2", "-c", "20", "-d", "110", *flags, "http://web/")
    curl = "while true; do curl -s -o /dev/null http://web/; echo $?; done"
    curls = switch.spawn("sh", "-c", curl)
    for _ in range(3):
        eventually(lambda: any(row["state"] == "established" for row in switch.rows("connections")))
        restart(switch)
        eventually(lambda: len(switch.rows("services")) == 2)

    def outcomes() -> list[str]:
        return [line for line in curls.log.read_text().splitlines() if line.isdigit()]  # type: ignore[attr-defined]

    before = len(outcomes())
    eventually(lambda: len(outcomes()) > before + 20)
    stop(curls)
    wrk.send_signal(signal.SIGINT)  # it ends, and says what there was
    assert wrk.wait(30) == 0
    said = wrk.log.read_text()  # type: ignore[attr-defined]
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 1000
    assert errors is None, said
    assert set(outcomes()[before + 1 :]) == {"0"}, "all that came after it was back"
    assert len(outcomes()) - outcomes().count("0") <= 3, "one curl a restart at most has waited too long"


@pytest.mark.root
def test_udp(switch: Switch, end: Callable[[], None]) -> None:
    switch.spawn("--name", "echo", PYTHON, "-c", ECHO)
    switch.wait_for("echo:5000")
    clients = [Talker(switch, "--ip", f"10.9.9.{n}", PYTHON, "-c", ASKER) for n in (1, 2)]
    assert [client.hear() for client in clients] == ["ready", "ready"]
    expected = [f"connected from 10.9.9.{n} loose from 10.9.9.{n}" for n in (1, 2)]
    assert clients[0].ask("") == expected[0]  # the other one hasn't sent anything yet
    end()
    assert clients[0].ask("") == expected[0]
    switch.serve()
    switch.wait_for("echo:5000")
    for _ in range(2):
        assert [client.ask("") for client in clients] == expected
    done = switch.run("--ip", "10.9.9.3", PYTHON, "-c", ASKER, input="\n").stdout
    assert done == "ready\nconnected from 10.9.9.3 loose from 10.9.9.3\n"


@pytest.mark.root
@pytest.mark.program("getent")
def test_questions_to_the_dns_server_wait(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    shell = Talker(switch, "sh", "-c", "while read name; do getent hosts $name; done")
    assert "10.9.9.1" in shell.ask("web")
    switch.kill_server()
    shell.say("web")
    switch.serve()
    assert "10.9.9.1" in shell.hear()
    assert "10.9.9.1" in shell.ask("web.appswitch.local")


@pytest.mark.root
@pytest.mark.program("dnsmasq", "dig")
def test_an_app_that_is_a_dns_server(switch: Switch) -> None:
    """It has port 53 of its namespace for itself; what it asks itself still comes to us."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    dnsmasq = "dnsmasq -k -R -h --bind-interfaces -u root --address=/its.own/10.4.4.4 & exec sh"
    dns = Talker(switch, "--name", "dns", "--ip", "10.9.9.53", "sh", "-c", dnsmasq)
    switch.wait_for("dns:53", "web:80")
    ask = ["dig", "+short", "+tries=3", "@10.9.9.53", "its.own"]
    assert switch.run(*ask).stdout == "10.4.4.4\n"
    for _ in range(2):
        restart(switch)
        switch.wait_for("dns:53")
        assert switch.run(*ask).stdout == "10.4.4.4\n"
        assert "10.9.9.1" in dns.ask("getent hosts web")


@pytest.mark.root
@pytest.mark.program("psql")
def test_postgres(switch: Switch) -> None:
    programs = postgres_programs()
    data = switch.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    initdb = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "--no-sync"]
    subprocess.run(initdb, user=65534, check=True, stdout=subprocess.DEVNULL, cwd="/")
    with (data / "pg_hba.conf").open("a") as file:
        file.write("host all all all trust\n")
    server = [str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data)]
    switch.spawn("--name", "db", "--user", "nobody", *server)
    switch.wait_for("db:5432")
    psql = ["psql", "-h", "db", "-U", "nobody", "-d", "postgres", "-At"]
    client = Talker(switch, "--name", "client", *psql)
    assert client.ask("select inet_client_addr();").startswith("100.")
    backend = client.ask("select pg_backend_pid();")
    restart(switch)
    assert client.ask("select pg_backend_pid();") == backend
    assert client.ask("select inet_client_addr();").startswith("100.")
    assert switch.run(*psql, "-c", "select count(*) from pg_stat_activity where client_port > 0").stdout == "2\n"


def test_a_connect_meanwhile_waits(switch: Switch) -> None:
    """One that may block does, until it is there again."""
    switch.spawn("--no-netns", "--name", "web", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    code = """
import socket, sys
s = socket.socket()
address = (sys.argv[1], 80)
sys.stdin.readline()
s.connect(address)
print(s.recv(99).decode(), flush=True)
"""
    (web,) = switch.rows("resolve", "web")
    client = Talker(switch, "--no-netns", PYTHON, "-c", code, web["ip"])
    eventually(lambda: len(switch.rows("ps")) == 2)
    switch.kill_server()
    client.say("")
    pid = next(_children(client.process.pid))
    eventually(lambda: "nanosleep" in Path(f"/proc/{pid}/wchan").read_text())
    switch.serve()
    assert client.hear().startswith("web sees ")


def _children(pid: int) -> Iterator[int]:
    """The programs under a spawn."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for keeper in (task / "children").read_text().split():
            yield from map(int, Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split())


def test_a_connect_without_a_trap_handler_fails_in_the_end(switch: Switch) -> None:
    """The first one after a while; all others at once, until there is one again."""
    switch.spawn("--no-netns", "--name", "web", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    code = """
import socket, sys, time
for line in sys.stdin:
    start = time.monotonic()
    s = socket.socket()
    s.setblocking(line == "block\\n")
    error = s.connect_ex((sys.argv[1], 80))
    print(error, round(time.monotonic() - start), flush=True)
"""
    (web,) = switch.rows("resolve", "web")
    client = Talker(switch, "--no-netns", PYTHON, "-c", code, web["ip"])
    assert client.ask("block").startswith("0 ")
    switch.kill_server()
    answers = [tuple(map(int, client.ask(how).split())) for how in ("don't", "block", "block", "don't")]
    assert {error for error, _ in answers} == {errno.ENETDOWN}
    assert answers[0][1] >= 2
    assert answers[0][1] + answers[1][1] >= 4
    assert answers[2][1] + answers[3][1] <= 2, "they don't wait once more"
    switch.serve()
    switch.wait_for("web:80")
    assert client.ask("block").startswith("0 ")


def test_a_program_that_never_had_one_doesn_t_wait(switch: Switch) -> None:
    code = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 80)))"
    environment = {**switch.environment, "LD_PRELOAD": switch.command("--shim-path").stdout.strip()}
    switch.kill_server()
    done = subprocess.run(
        [PYTHON, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=4.5
    )
    assert done.stdout == f"{errno.ENETDOWN}\n"
    assert "no trap handler" in done.stderr
    switch.serve()


def test_preloaded_alone(switch: Switch) -> None:
    environment = {
        **switch.environment,
        "LD_PRELOAD": switch.command("--shim-path").stdout.strip(),
        "APPSWITCH_NAME": "alone",
    }
    process = subprocess.Popen([PYTHON, "-c", HELLO, "alone"], env=environment)
    try:
        switch.wait_for("alone:80")
        before = rows(switch)
        restart(switch)
        assert rows(switch) == before
        assert switch.run(PYTHON, "-c", DIALLER, input="alone 80\n").stdout.startswith("alone sees")
    finally:
        process.kill()
        process.wait()


def test_a_state_that_can_t_be_read_is_kept_aside(switch: Switch) -> None:
    switch.spawn("--name", "web", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    switch.kill_server()
    journal = switch.directory / "trap.sock.state" / "journal"
    journal.write_bytes(journal.read_bytes()[:-20] + b"\0" * 19 + b"\n")
    switch.serve()
    assert "can't be read" in switch.log.read_text()
    assert journal.with_name("journal.aside-1").exists()
    assert switch.rows("ps") == []
    switch.spawn("--name", "web2", PYTHON, "-c", HELLO, "web2")
    switch.wait_for("web2:80")


@NETNS
def test_what_ended_meanwhile_is_gone(switch: Switch, netns: list[str]) -> None:
    web = switch.spawn(*netns, "--name", "web", PYTHON, "-c", HELLO, "web")
    switch.spawn(*netns, "--name", "other", PYTHON, "-c", HELLO, "other")
    switch.wait_for("web:80", "other:80")
    switch.kill_server()
    stop(web)
    switch.serve()
    assert {row["name"] for row in switch.rows("services")} == {"other"}
    eventually(lambda: {row["name"] for row in switch.rows("ps")} == {"other"})
    restart(switch)
    assert {row["name"] for row in switch.rows("ps")} == {"other"}


@pytest.mark.root
def test_an_ordinary_users() -> None:
    """Its keepers call from user namespaces."""
    with running_switch(user=65534) as switch:
        python, _ = python_for(65534)
        switch.spawn("--name", "web", python, "-c", HELLO, "web")
        switch.wait_for("web:80")
        client = Talker(switch, "--name", "client", python, "-c", DIALLER)
        for _ in range(2):
            assert client.ask("web 80").startswith("web sees 100.")
            before = rows(switch)
            restart(switch)
            assert rows(switch) == before
            assert client.ask("web.appswitch.local 80").startswith("web sees 100.")  # a name that it hasn't asked for
