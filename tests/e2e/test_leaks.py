"""The trap handler is as it was when its apps have gone (elsewhere a handler grew to 2,500 threads in 18 hours)."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from appswitch.edge.namespaces import SPARE
from tests.harness import PATIENCE, Switch, Talker, eventually

CLIENTS = """
import os, socket
server = socket.create_server(("", 80), backlog=1000)
for _ in range(20):
    if os.fork() == 0:
        for port in (80, 80, 80, 9):
            client = socket.socket()
            client.connect_ex(("127.0.0.1", port))
        socket.create_server(("", 0))
        os._exit(0)
for _ in range(20):
    os.wait()
"""

SERVER = "import socket; s = socket.create_server(('', 80))\nwhile True: s.accept()[0].sendall(b'here')"
CLIENT = """
import socket
while input():
    print(socket.create_connection(("web", 80)).recv(9).decode(), flush=True)
"""


def held_by(pid: int) -> tuple[int, int]:
    """How many threads and descriptors."""
    process = Path(f"/proc/{pid}")
    return len(list(process.joinpath("task").iterdir())), len(list(process.joinpath("fd").iterdir()))


def holds_no_more(pid: int, before: tuple[int, int]) -> bool:
    """Than before, of either. (Of tuples `<=` looks at the second part only where the first ones are equal.)"""
    return all(now <= then for now, then in zip(held_by(pid), before, strict=True))


def memory_of(pid: int) -> int:
    """Bytes of it that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_nothing_is_left_of_apps(switch: Switch) -> None:
    switch.run("--name", "first", sys.executable, "-c", CLIENTS)
    eventually(lambda: not switch.rows("ps"))
    before = held_by(switch.server.pid)
    for i in range(5):
        switch.run("--name", f"app-{i}", sys.executable, "-c", CLIENTS)
    eventually(lambda: not switch.rows("ps"))
    eventually(lambda: holds_no_more(switch.server.pid, before))


def test_an_app_takes_few_descriptors(switch: Switch) -> None:
    """Its keeper's connection, DNS by UDP and TCP, the kernel's list of its sockets, and who makes further ones."""
    switch.run("--name", "first", "true")  # then all has been opened that is opened once
    eventually(lambda: not switch.rows("ps"))
    _, before = held_by(switch.server.pid)
    for _ in range(4):
        switch.spawn("sleep", "99")
    eventually(lambda: len(switch.rows("ps")) == 4)
    eventually(lambda: held_by(switch.server.pid)[1] <= before + 4 * 5)


def test_descriptors_run_out_for_new_apps_first(switch: Switch) -> None:
    """Who starts one is told; those that run go on, and there is room again when one of them has ended."""
    switch.spawn("--name", "web", sys.executable, "-c", SERVER)
    switch.wait_for("web:80")
    _, used = held_by(switch.server.pid)
    resource.prlimit(switch.server.pid, resource.RLIMIT_NOFILE, (used + SPARE + 8, used + SPARE + 8))
    running = Talker(switch, sys.executable, "-uc", CLIENT)
    eventually(lambda: len(switch.rows("ps")) == 2)
    refused = switch.run("true", check=False)
    assert refused.returncode == 125
    assert "no room for another app" in refused.stderr
    assert "hint: " in refused.stderr
    assert running.ask("again") == "here"
    running.process.communicate(timeout=PATIENCE)
    eventually(lambda: len(switch.rows("ps")) == 1)
    switch.run("true")
