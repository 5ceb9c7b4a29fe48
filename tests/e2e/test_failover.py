"""Instances that go, come and stick, under load: no client sees an error while one of them lives."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import Switch, eventually

PYTHON = sys.executable
SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())
SERVER = """
import socket, sys
s = socket.create_server(("", 7000))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[1].encode())
    c.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[1])):
    print(socket.create_connection(("web", 7000)).recv(9).decode())
"""
FILL = """
import signal, socket, sys
where = socket.gethostbyname("web"), 7000  # asked once: it is four thousand times, and the machine may be busy
kept = [socket.create_connection(where) for _ in range(int(sys.argv[1]))]
print("full", flush=True)
signal.pause()
"""
NGINX = """
daemon off; user root; worker_processes 2; pid {dir}/nginx-{number}.pid; error_log {dir}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{ listen 80; location / {{ return 200 "instance {number}\\n"; }} }}
}}
"""


def nginx(switch: Switch, number: int) -> subprocess.Popen[str]:
    """Instance `number` of web, serving."""
    config = switch.directory / f"nginx-{number}.conf"
    config.write_text(NGINX.format(dir=switch.directory, number=number))
    before = {row["app"] for row in switch.rows("services")}
    process = switch.spawn("--name", "web", "nginx", "-c", str(config))
    eventually(lambda: {row["app"] for row in switch.rows("services")} - before)
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """All of it, at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def stop_and_fill(switch: Switch, server: subprocess.Popen[str]) -> None:
    """Has it accept nothing any more, until SIGCONT; its queue is full."""
    os.killpg(server.pid, signal.SIGSTOP)
    filling = switch.spawn(PYTHON, "-c", FILL, str(SOMAXCONN + 1))
    eventually(lambda: "full" in filling.log.read_text())  # type: ignore[attr-defined]


@pytest.mark.root
@pytest.mark.program("nginx", "wrk")
@pytest.mark.parametrize("flags", [[], ["-H", "Connection: close"]], ids=["kept", "a connection a request"])
def test_killed_and_started_again_under_wrk(switch: Switch, flags: list[str]) -> None:
    instances = [nginx(switch, number) for number in range(3)]
    wrk = switch.spawn("wrk", "-t", "2", "-c", "20", "-d", "110", *flags, "http://web/")
    for number in (0, 1, 2, 0, 1, 2):
        eventually(lambda: any(row["state"] == "established" for row in switch.rows("connections")))
        kill(instances[number])
        instances[number] = nginx(switch, number)
    wrk.send_signal(signal.SIGINT)  # it ends, and says what there was
    assert wrk.wait(30) == 0
    said = wrk.log.read_text()  # type: ignore[attr-defined]
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    assert "Non-2xx" not in said
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 1000
    assert errors is None or (errors[1], errors[4]) == ("0", "0"), said


def test_one_that_is_stopped_and_full_is_gone_past(switch: Switch) -> None:
    stuck = switch.spawn("--name", "web", PYTHON, "-c", SERVER, "a")
    switch.wait_for("web:7000")
    stop_and_fill(switch, stuck)
    switch.spawn("--name", "web", PYTHON, "-c", SERVER, "b")
    eventually(lambda: len(switch.rows("services")) == 2)
    for times in ("1", "1", "200"):
        assert set(switch.run(PYTHON, "-c", CLIENT, times).stdout.split()) == {"b"}
    os.killpg(stuck.pid, signal.SIGCONT)
    eventually(lambda: set(switch.run(PYTHON, "-c", CLIENT, "4").stdout.split()) == {"a", "b"})
    counts = Counter(switch.run(PYTHON, "-c", CLIENT, "100").stdout.split())
    assert 45 <= counts["a"] <= 55, counts


COUNTING = """
import socket
s = socket.create_server(("", 7000))
while True:
    c, _ = s.accept()
    print("accepted", flush=True)
    c.sendall(b"here")
"""
WAITING = """
import os, socket
where = socket.gethostbyname("web"), 7000
print(os.getpid(), flush=True)
socket.create_connection(where)
"""


def test_nobody_dials_for_a_client_that_has_gone(switch: Switch) -> None:
    server = switch.spawn("--name", "web", PYTHON, "-c", COUNTING)
    switch.wait_for("web:7000")
    stop_and_fill(switch, server)
    waiting = switch.spawn("--name", "waiting", PYTHON, "-c", WAITING)
    eventually(lambda: waiting.log.read_text().endswith("\n"))  # type: ignore[attr-defined]
    pid = int(waiting.log.read_text())  # type: ignore[attr-defined]
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "S")
    kill(waiting)
    eventually(lambda: not any(row["name"] == "waiting" for row in switch.rows("ps")))
    os.killpg(server.pid, signal.SIGCONT)
    assert switch.run(PYTHON, "-c", CLIENT, "1").stdout == "here\n"
    assert server.log.read_text().count("accepted") == SOMAXCONN + 2  # type: ignore[attr-defined]


def test_a_connect_that_waits_holds_up_nobody_else(switch: Switch) -> None:
    """Its queue is full; the calls of other apps, and those of its own other threads, are answered meanwhile."""
    server = switch.spawn("--name", "web", PYTHON, "-c", COUNTING)
    switch.wait_for("web:7000")
    stop_and_fill(switch, server)
    other = SERVER.replace("7000", "7001")
    threads = (
        "import socket, threading\n"
        "def wait(): print('in', socket.create_connection(('web', 7000)).recv(9), flush=True)\n"
        "waiting = [threading.Thread(target=wait) for _ in range(8)]\n"
        "for each in waiting: each.start()\n"
        "for _ in range(20): print(socket.create_connection(('other', 7001)).recv(9), flush=True)\n"
        "for each in waiting: each.join()\n"
    )
    switch.spawn("--name", "other", PYTHON, "-c", other, "x")
    switch.wait_for("other:7001")
    waiting = switch.spawn(PYTHON, "-c", threads)
    eventually(lambda: waiting.log.read_text().count("x") == 20)  # type: ignore[attr-defined]
    client = CLIENT.replace('("web", 7000)', '("other", 7001)')
    assert switch.run(PYTHON, "-c", client, "20").stdout.split() == ["x"] * 20
    assert "in" not in waiting.log.read_text()  # type: ignore[attr-defined]
    os.killpg(server.pid, signal.SIGCONT)
    assert waiting.wait(30) == 0
    assert waiting.log.read_text().count("in") == 8  # type: ignore[attr-defined]
