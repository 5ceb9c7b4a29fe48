"""`spawn --tcp`: real TCP between real programs of one host, with the same identities as ever."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import IO, Any

import pytest

from tests.e2e.test_real_programs import iperf2, nginx_config
from tests.harness import PATIENCE, Switch, eventually, running_switch, stop
from tests.test_spawn import child_of

NOBODY = 65534
PYTHON = sys.executable

# What carries a connection: only real TCP has found out how large its segments can be (tcpi_snd_mss).
MEDIUM = """
import socket, struct
def medium(c):
    info = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return "tcp" if struct.unpack_from("I", info, 16)[0] > 9000 else "unix"
"""
CLIENT = f"""{MEDIUM}
for _ in range(4):
    c = socket.create_connection(("web", 80))
    print(medium(c), c.getsockname()[0], *c.getpeername(), c.recv(99).decode())
"""
SERVER = f"""{MEDIUM}
s = socket.create_server(("", 80), backlog=100)
while True:
    c, peer = s.accept()
    with c:
        assert c.getpeername() == peer
        c.sendall(f"{{medium(c)}} {{peer[0]}} {{c.getsockname()[0]}}".encode())
"""


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@pytest.mark.parametrize("netns", [[], ["--no-netns"]], ids=["netns", "no netns"])
@pytest.mark.parametrize(
    ("server", "client", "medium"),
    [([], [], "unix"), (["--tcp"], [], "tcp"), ([], ["--tcp"], "tcp"), (["--tcp"], ["--tcp"], "tcp")],
    ids=["nobody", "server", "client", "both"],
)
def test_whoever_asks_for_it(
    switch: Switch, server: list[str], client: list[str], medium: str, netns: list[str]
) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", *server, *netns, PYTHON, "-c", SERVER)
    switch.wait_for("web:80")
    (row,) = switch.rows("services")
    assert row["medium"] == ("tcp" if server else "unix")
    said = switch.run("--ip", "10.9.9.2", *client, *netns, PYTHON, "-c", CLIENT).stdout.splitlines()
    assert said == [f"{medium} 10.9.9.2 10.9.9.1 80 {medium} 10.9.9.2 10.9.9.1"] * 4
    # From within the app itself, by loopback and by its own address
    code = CLIENT.replace('"web"', '"127.0.0.1"')
    said = switch.run("--ip", "10.9.9.1", *client, *netns, PYTHON, "-c", code).stdout.splitlines()
    assert said == [f"{medium} 127.0.0.1 127.0.0.1 80 {medium} 127.0.0.1 127.0.0.1"] * 4


@pytest.mark.parametrize("user", [NOBODY, pytest.param(None, marks=pytest.mark.root)], ids=["nobody", "root"])
@pytest.mark.root
def test_by_the_environment_and_as_an_ordinary_user(user: int | None) -> None:
    with running_switch(user=user) as switch:
        python = switch.appswitch[0]
        switch.spawn("--name", "web", "--ip", "10.9.9.1", "--tcp", python, "-c", SERVER)
        switch.wait_for("web:80")
        assert "tcp 169.254" in switch.run(python, "-c", CLIENT).stdout
        environment = {
            **switch.environment,
            "LD_PRELOAD": switch.command("--shim-path").stdout.strip(),
            "APPSWITCH_IP": "10.9.9.2",
            "APPSWITCH_TCP": "1",
        }
        who: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        done = subprocess.run(
            [python, "-c", CLIENT], env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE, **who
        )
        assert done.stdout.splitlines() == ["tcp 10.9.9.2 10.9.9.1 80 tcp 10.9.9.2 10.9.9.1"] * 4


def test_services_with_instances_of_both_kinds(switch: Switch) -> None:
    for flags in ([], ["--tcp"]):
        switch.spawn("--name", "web", "--ip", "10.9.9.1", *flags, PYTHON, "-c", SERVER)
    eventually(lambda: len(switch.rows("services")) == 2)
    said = switch.run("--ip", "10.9.9.2", PYTHON, "-c", CLIENT).stdout.splitlines()
    lines = [f"{medium} 10.9.9.2 10.9.9.1 80 {medium} 10.9.9.2 10.9.9.1" for medium in ("tcp", "unix")]
    assert sorted(said) == sorted(lines * 2)


@pytest.mark.program("redis-server", "redis-cli", "redis-benchmark")
def test_redis(switch: Switch) -> None:
    switch.spawn("--name", "redis", "--ip", "10.9.9.1", "--tcp", "redis-server", "--save", "", "--protected-mode", "no")
    switch.wait_for("redis:6379")
    said = switch.run("--ip", "10.9.9.2", "redis-cli", "-h", "redis", "client", "list").stdout
    assert re.search(r" addr=10\.9\.9\.2:\d+ laddr=10\.9\.9\.1:6379 ", said), said
    done = switch.run("redis-benchmark", "-h", "redis", "-c", "50", "-n", "20000", "-P", "16", "-t", "get", "--csv")
    assert re.search(r'"GET","[1-9]', done.stdout), done
    done = switch.run("redis-benchmark", "-h", "redis", "-c", "20", "-n", "500", "-k", "0", "-t", "get", timeout=90)
    assert "500 requests completed" in done.stdout
    switch.spawn("--ip", "10.9.9.3", "redis-cli", "-h", "redis", "blpop", "k", "0")
    eventually(lambda: [row["state"] for row in switch.rows("connections")] == ["established"])
    (row,) = switch.rows("connections")
    assert (row["client_ip"], row["dest_ip"], row["dest_port"]) == ("10.9.9.3", "10.9.9.1", 6379)
    assert (row["server_name"], row["medium"]) == ("redis", "tcp")


@pytest.mark.root
@pytest.mark.program("nginx", "curl", "wrk")
def test_nginx_with_several_workers_that_accept_at_once(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", "--tcp", "nginx", "-c", nginx_config(switch))
    switch.wait_for("web:80")
    done = switch.run("--ip", "10.9.9.2", "curl", "-s", "http://web/")
    assert done.stdout == "from 10.9.9.1 to 10.9.9.2\n"
    done = switch.run("wrk", "-t", "2", "-c", "40", "-d", "1s", "http://web/")
    assert "Socket errors" not in done.stdout
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 1000
    done = switch.run("wrk", "-t", "2", "-c", "20", "-d", "2s", "-H", "Connection: close", "http://web/")
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 50
    assert not re.search(r"connect [1-9]", done.stdout), done.stdout
    log = (switch.directory / "nginx-error.log").read_text()
    assert "alert" not in log, log


@pytest.mark.program("iperf")
@pytest.mark.parametrize("flags", [[], ["-r"], ["-P", "4"]], ids=["one", "reverse", "parallel"])
def test_iperf(switch: Switch, flags: list[str]) -> None:
    switch.spawn("--name", "server", "--tcp", "iperf", "-s")
    switch.wait_for("server:5001")
    done = switch.run("--name", "client", *iperf2("-c", "server", *flags), timeout=60)
    assert len(re.findall(r"[GM]bits/sec", done.stdout)) >= (5 if "-P" in flags else 1 if not flags else 2), done
    assert "failed" not in done.stdout + done.stderr


ASYNCIO = """
import asyncio
async def ask(i):
    reader, writer = await asyncio.open_connection("web", 80)
    own = writer.get_extra_info("sockname")[0]
    data = await reader.read()
    writer.close()
    return data.decode().split()[1] == own
async def main():
    print(sum(await asyncio.gather(*map(ask, range(100)))))
asyncio.run(main())
"""


def test_many_non_blocking_connects(switch: Switch) -> None:
    switch.spawn("--name", "web", "--tcp", PYTHON, "-c", SERVER)
    switch.wait_for("web:80")
    assert switch.run(PYTHON, "-c", ASYNCIO).stdout == "100\n"


WAITS = """
import socket
web = (socket.gethostbyname("web"), 80)  # its name goes with it
c = socket.create_connection(web)
print("ready", flush=True)
try:
    print(c.recv(99))
except ConnectionResetError:
    print("reset")
try:
    socket.create_connection(web)
except ConnectionRefusedError:
    print("refused")
"""
DEAF = "import signal, socket; s = socket.create_server(('', 80)); signal.pause()"


def test_a_server_that_is_killed_with_a_delivery_in_its_queue(switch: Switch) -> None:
    server = switch.spawn("--name", "web", "--tcp", PYTHON, "-c", DEAF)
    switch.wait_for("web:80")
    client = switch.spawn(PYTHON, "-c", WAITS, stdout=subprocess.PIPE)
    assert output(client).readline() == "ready\n"

    os.kill(child_of(server), signal.SIGKILL)
    said, _ = client.communicate(timeout=PATIENCE)
    assert said in ("b''\nrefused\n", "reset\nrefused\n")
    eventually(lambda: switch.rows("connections") == [])


TALKS = """
import os, socket, sys
c = socket.create_connection(("web", 80))
print(c.getsockname()[0], *c.getpeername(), flush=True)
sys.stdin.readline()
c.sendall(b"still there")
print(c.recv(99).decode(), c.getsockname()[0], *c.getpeername(), flush=True)
"""
ECHOES = """
import socket
c, _ = socket.create_server(("", 80)).accept()
print("accepted", flush=True)
c.sendall(c.recv(99))
c.recv(1)
"""


def test_the_trap_handlers_end_is_not_the_connections(switch: Switch) -> None:
    """It goes on, and who knows its names still knows them."""
    server = switch.spawn("--name", "web", "--ip", "10.9.9.1", "--tcp", PYTHON, "-c", ECHOES)
    switch.wait_for("web:80")
    client = switch.spawn(
        "--ip", "10.9.9.2", PYTHON, "-c", TALKS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert output(client).readline() == "10.9.9.2 10.9.9.1 80\n"
    eventually(lambda: server.log.read_text() == "accepted\n")  # type: ignore[attr-defined]
    stop(switch.server)
    said, _ = client.communicate("\n", timeout=PATIENCE)
    assert said == "still there 10.9.9.2 10.9.9.1 80\n"
