"""Policy files, on a trap handler that runs: what they allow, and reloading."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually, reload, running_switch

PYTHON = sys.executable

SERVER = """
import contextlib, socket
listener = socket.create_server(("", 7000))
while True:
    with contextlib.suppress(BrokenPipeError):
        listener.accept()[0].sendall(b"in")
"""

# For each line of input a connect; the first two go by the trap handler, the others by capability.
CLIENT = """
import socket, sys
for line in sys.stdin:
    try:
        with socket.create_connection(("10.9.9.1", 7000)) as c:
            print(c.recv(9).decode() or "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""

DENY = '[[rule]]\nname = "no-way"\naction = "deny"\nto = { name = "db", port = "6000-7000" }\n'
AUDIT = '[[rule]]\nname = "who"\naction = "audit"\nto = { name = "db" }\n'


@pytest.fixture
def policed(tmp_path: Path) -> Iterator[Switch]:
    """A trap handler with an empty policy file, `policy.toml`, and a server."""
    (tmp_path / "policy.toml").touch()
    with running_switch("--policy", f"{tmp_path}/policy.toml") as switch:
        switch.spawn("--ip", "10.9.9.1", "--name", "db", PYTHON, "-c", SERVER)
        switch.wait_for("db:7000")
        yield switch


class Client:
    """Connects when told to."""

    def __init__(self, switch: Switch, *flags: str) -> None:
        self._process = switch.spawn(
            *flags, PYTHON, "-c", CLIENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def connect(self) -> str:
        """What came of it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def client(policed: Switch) -> Iterator[Client]:
    made = Client(policed, "--name", "web")
    yield made
    made.close()


def test_a_reload_reaches_clients_that_connect_by_capability(policed: Switch, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    assert [client.connect() for _ in range(5)] == ["in"] * 5
    for _ in range(2):
        reload(policed, file, DENY, "rules=1")
        assert [client.connect() for _ in range(5)] == ["ConnectionRefusedError"] * 5
        assert "rule no-way denies it" in policed.log.read_text()
        reload(policed, file, "", "rules=0")
        assert [client.connect() for _ in range(5)] == ["in"] * 5


def test_a_bad_file_changes_nothing_and_says_which_line(policed: Switch, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    reload(policed, file, DENY, "rules=1")
    assert client.connect() == "ConnectionRefusedError"
    reload(policed, file, DENY + 'actoin = "allow"\n', f"{file}:5: unknown key actoin")
    assert client.connect() == "ConnectionRefusedError"
    file.unlink()
    policed.server.send_signal(signal.SIGHUP)
    eventually(lambda: "policy.toml can't be read: No such file" in policed.log.read_text())
    assert client.connect() == "ConnectionRefusedError"
    reload(policed, file, "", "rules=0")
    assert client.connect() == "in"


def test_audited_connections_pass_and_each_is_reported(policed: Switch, client: Client, tmp_path: Path) -> None:
    """By capability the trap handler wouldn't learn of them."""
    assert [client.connect() for _ in range(5)] == ["in"] * 5
    reload(policed, tmp_path / "policy.toml", AUDIT, "rules=1")
    assert [client.connect() for _ in range(5)] == ["in"] * 5
    reported = [line for line in policed.log.read_text().splitlines() if "] audit " in line]
    assert len(reported) == 5
    assert all("who" in line for line in reported)


def test_the_default_holds_where_no_rule_fits(policed: Switch, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    reload(policed, file, 'default = "deny"', "rules=0")
    assert client.connect() == "ConnectionRefusedError"
    allow = '[[rule]]\naction = "allow"\nfrom = { name = "w*" }\nto = { node = "n1", tags = [] }\n'
    reload(policed, file, 'default = "deny"\n' + allow, "rules=1")
    assert client.connect() == "in"
    stranger = Client(policed)
    assert stranger.connect() == "ConnectionRefusedError"
    stranger.close()


ECHO = """
import contextlib, socket, threading
def echo(end):
    with contextlib.suppress(OSError):
        while data := end.recv(99):
            end.sendall(data)
listener = socket.create_server(("", 7001))
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""

# Says for each line of input what comes of a byte on each of five connections: the first two were made by the trap
# handler, the others by capability.
HELD = """
import socket, sys
held = [socket.create_connection(("db", 7001)) for _ in range(5)]
for line in sys.stdin:
    said = []
    for each in held:
        try:
            each.sendall(b"x")
            said.append("open" if each.recv(1) else "ended")
        except OSError:
            said.append("ended")
    print(*said, flush=True)
"""


def test_a_rule_may_cut_what_it_denies(policed: Switch, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    policed.spawn("--ip", "10.9.9.1", "--name", "db", PYTHON, "-c", ECHO)
    policed.wait_for("db:7001")
    clients = [
        policed.spawn("--name", name, PYTHON, "-c", HELD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("web", "other")
    ]

    def states() -> list[str]:
        said = []
        for each in clients:
            assert each.stdin
            assert each.stdout
            each.stdin.write("\n")
            each.stdin.flush()
            said.append(each.stdout.readline().strip())
        return said

    all_open, all_ended = " ".join(["open"] * 5), " ".join(["ended"] * 5)
    assert states() == [all_open, all_open]
    deny = '[[rule]]\nname = "no-web"\naction = "deny"\nfrom = { name = "web" }\n'
    reload(policed, file, deny, "rules=1")
    assert states() == [all_open, all_open], "without cut it is for new ones"
    said = "rule no-web denies it, and cuts the connection"
    reload(policed, file, deny + "cut = true\n", "rules=1")
    eventually(lambda: policed.log.read_text().count(said) == 5)
    eventually(lambda: states() == [all_ended, all_open])
    for each in clients:
        each.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("text", "says"),
    [('\n[[rule]]\naction = "no"\n', "policy.toml:3: 'no' is none of"), (None, "can't be read: No such file")],
)
def test_a_bad_file_at_the_start_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "policy.toml").write_text(text)
    switch = Switch(tmp_path)
    done = switch.command("serve", "--policy", f"{tmp_path}/policy.toml", check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert "hint: " in done.stderr
    assert not switch.trap.exists()
