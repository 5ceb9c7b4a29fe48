"""The trap handler is as it was when its apps have gone (elsewhere a handler grew to 2,500 threads in 18 hours)."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness import Switch, eventually

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


def held_by(pid: int) -> tuple[int, int]:
    """How many threads and descriptors."""
    process = Path(f"/proc/{pid}")
    return len(list(process.joinpath("task").iterdir())), len(list(process.joinpath("fd").iterdir()))


def test_nothing_is_left_of_apps(switch: Switch) -> None:
    switch.run("--name", "first", sys.executable, "-c", CLIENTS)
    eventually(lambda: not switch.rows("ps"))
    before = held_by(switch.server.pid)
    for i in range(5):
        switch.run("--name", f"app-{i}", sys.executable, "-c", CLIENTS)
    eventually(lambda: not switch.rows("ps"))
    eventually(lambda: held_by(switch.server.pid) <= before)
