"""Several hosts as one application network: who is there, what each knows, and what happens when some go."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, eventually
from tests.hosts import Host, Network, network, only

pytestmark = [pytest.mark.root, pytest.mark.program("serf")]

PYTHON = sys.executable
WEB = ["--name", "web", "--ip", "10.9.9.1"]
SAY = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[2].encode())
    c.close()
"""
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 20).recv(99).decode())"


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def say(host: Host, *flags: str, port: int = 80, text: str | None = None) -> subprocess.Popen[str]:
    """A server there that says its host's name, or `text`."""
    return host.spawn(*(flags or WEB), PYTHON, "-c", SAY, str(port), text or host.name)


def ask(host: Host, name: str = "web", port: int = 80) -> str:
    return host.run(PYTHON, "-c", ASK, name, str(port)).stdout.strip()


def served(host: Host) -> set[tuple[Any, ...]]:
    """(node, name, port) of what can be reached, as that host knows it."""
    return {(row["node"], row["name"], row["port"]) for row in host.rows("services") if row["state"] == "up"}


def logged(host: Host, pattern: str) -> bool:
    return re.search(pattern, host.log.read_text()) is not None


# --- joining


def test_five_hosts_know_the_same(net: Network) -> None:
    hosts = net.serve(*"abcde")
    for number, host in enumerate(hosts):
        say(host, "--name", f"on-{host.name}", port=8000 + number)
        host.wait_for(f"on-{host.name}:{8000 + number}")
    for host in hosts:
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
    everything = {(host.name, f"on-{host.name}", 8000 + number) for number, host in enumerate(hosts)}
    for host in hosts:
        assert served(host) == everything
        nodes = host.rows("nodes")
        assert [row["state"] for row in nodes] == ["alive"] * 5
        assert {row["seq"] for row in nodes} == {2}
        assert {row["address"] for row in nodes} == {each.address for each in hosts}
        assert host.rows("resolve", "on-e")[0]["ip"] == hosts[0].rows("resolve", "on-e")[0]["ip"]
    assert ask(hosts[1], "on-d", 8003) == "d"


def test_the_one_address_to_join_may_come_later(net: Network) -> None:
    a, b = net.add("a"), net.add("b")
    b.serve("--key-file", str(net.key), "--join", a.address)
    eventually(lambda: logged(b, rf"can't be reached.*{re.escape(a.address)}|{re.escape(a.address)}.*can't be reached"))
    done = b.command("nodes", "--wait", "--timeout", "1.5", check=False)
    assert done.returncode == 1
    assert "appswitch: waiting: no agreement after 1 s: no host that this one was told to join has let" in done.stderr
    a.serve("--key-file", str(net.key))
    b.command("nodes", "--wait", "--timeout", str(PATIENCE))
    assert set(b.tables()) == {"a", "b"}


def test_the_key_is_in_no_argument_and_no_log(net: Network) -> None:
    """Of no process: whatever `serve` has started is looked at, too."""
    hosts = net.serve("a", "b")
    key = net.key.read_bytes().strip()
    said = [file.read_bytes() for host in hosts for file in [host.log, *host.log.parent.rglob("*.log")]]
    looked_at = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            said += [(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]
            looked_at += 1
    assert looked_at > 4
    assert not [text for text in said if key in text]


def test_another_key(net: Network, tmp_path: Path) -> None:
    a, b, c = net.add("a"), net.add("b"), net.add("c")
    other = tmp_path / "key"
    other.write_text(subprocess.run(["serf", "keygen"], check=True, text=True, capture_output=True).stdout)
    other.chmod(0o600)
    a.serve("--key-file", str(net.key))
    say(a)
    b.serve("--key-file", str(other), "--join", a.address)
    c.serve("--join", a.address)  # without a key
    for host in (b, c):
        eventually(lambda host=host: logged(host, "key"))
        assert host.server.poll() is None
        assert [row["name"] for row in host.rows("nodes")] == [host.name]
        assert host.rows("services") == []
    assert [row["name"] for row in a.rows("nodes")] == ["a"]
    other.write_bytes(net.key.read_bytes())  # mended, and started again
    b.server.terminate()
    b.server.wait(PATIENCE)
    b.serve("--key-file", str(other), "--join", a.address)
    b.command("nodes", "--wait", "--timeout", str(PATIENCE))
    assert served(b) == {("a", "web", 80)}


def test_a_name_that_is_taken(net: Network) -> None:
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    third = net.add("c")
    third.name = "a"
    third.serve("--key-file", str(net.key), "--join", b.address)
    eventually(lambda: logged(third, "taken by the node at 10.99.0.1"))
    assert served(b) == {("a", "web", 80)}
    assert {row["address"] for row in b.rows("nodes")} == {a.address, b.address}
    assert ask(b) == "a"
    waited = third.command("nodes", "--wait", "--timeout", "0.5", check=False)
    assert (waited.returncode, "isn't let in" in waited.stderr) == (1, True), waited


# --- apps that move, and end


def test_an_app_that_moves_is_reached_at_its_new_place(net: Network) -> None:
    a, b, c = net.serve("a", "b", "c")
    first = say(a)
    c.wait_for("web:80")
    assert ask(c) == "a"
    first.terminate()
    first.wait(PATIENCE)
    say(b)
    eventually(lambda: served(c) == {("b", "web", 80)})
    assert ask(c) == "b"
    assert c.rows("resolve", "web")[0]["ip"] == "10.9.9.1"


def test_a_failed_host_comes_back_with_what_it_has(net: Network) -> None:
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    a.cut_off()
    eventually(lambda: only(b.rows("nodes"), name="a", state="suspect"))
    assert only(b.rows("services"), node="a", state="suspect")
    other = say(a, "--name", "later", port=81)
    a.wait_for("later:81")
    a.join_again()
    for host in (a, b):
        eventually(lambda host=host: set(host.tables()) == {"a", "b"})
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
        assert served(host) == {("a", "web", 80), ("a", "later", 81)}
    assert ask(b, "later", 81) == "a"
    other.terminate()
    eventually(lambda: served(b) == {("a", "web", 80)})


def test_both_halves_go_on_and_agree_again(net: Network) -> None:
    """What came and what went on either side while they were apart. Serf takes ten seconds to part and to meet."""
    a, b, c = hosts = net.serve("a", "b", "c")
    gone_left, gone_right = say(a, "--name", "gone-left"), say(c, "--name", "gone-right")
    for host in hosts:
        host.wait_for("gone-left:80", "gone-right:80")
    a.cut_off()
    eventually(lambda: only(b.rows("nodes"), name="a", state="suspect"))
    for each in (gone_left, gone_right):
        each.terminate()
        each.wait(PATIENCE)
    say(a, "--name", "left")
    say(b, "--name", "right")
    say(c, "--name", "both")
    say(a, "--name", "both")
    a.wait_for("left:80", "both:80")
    b.wait_for("right:80", "both:80")
    assert ask(a, "both") == "a"
    assert ask(b, "both") == "c"
    a.join_again()
    expected = {("a", "left", 80), ("b", "right", 80), ("c", "both", 80), ("a", "both", 80)}
    for host in hosts:
        eventually(lambda host=host: set(host.tables()) == {"a", "b", "c"})
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
        assert served(host) == expected
    assert len({frozenset(host.tables().items()) for host in hosts}) == 1
    assert (ask(b, "left"), ask(a, "right")) == ("a", "b")


KNOWN_WITHIN = 5.0  # seconds; 0.7 on a quiet machine


def test_a_host_whose_trap_handler_is_stopped(net: Network) -> None:
    """Who connects to its apps learns soon that it can't; when it goes on, so does all else."""
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    a.server.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    done = b.run(PYTHON, "-c", ASK, "web", "80", check=False)
    assert time.monotonic() - began < KNOWN_WITHIN
    assert os.strerror(errno.EHOSTUNREACH) in done.stderr
    a.server.send_signal(signal.SIGCONT)
    eventually(lambda: b.run(PYTHON, "-c", ASK, "web", "80", check=False).stdout.strip() == "a")


ORDERS = list(itertools.permutations(("program", "serve", "host")))


@pytest.mark.parametrize("orders", [ORDERS[:3], ORDERS[3:]])
def test_no_ghosts(net: Network, orders: list[tuple[str, ...]]) -> None:
    """Of the three owners of an entry, killed in any order, none leaves it behind where it could be chosen."""
    *owners, watcher, _, _ = net.serve(*"abcwxy")  # where most die at once, Serf takes its time to believe it
    apps = [say(host, "--name", f"on-{host.name}") for host in owners]
    say(watcher, "--name", "there")
    for host in owners:
        watcher.wait_for(f"on-{host.name}:80")
    for step in range(3):
        for host, app, order in zip(owners, apps, orders, strict=True):
            if order[step] == "program":
                app.kill()
                app.wait(PATIENCE)
            elif order[step] == "serve":
                host.server.kill()
                host.server.wait(PATIENCE)
            else:
                host.kill()
    eventually(lambda: served(watcher) == {("w", "there", 80)})
    for host in owners:
        host.serve("--key-file", str(net.key), "--join", watcher.address)
    for host in net.hosts:
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
        assert {row["node"] for row in host.rows("services")} == {"w"}


def test_one_that_stops_takes_leave(net: Network) -> None:
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    a.server.send_signal(signal.SIGTERM)
    a.server.wait(PATIENCE)
    eventually(lambda: b.rows("services") == [])
    assert not only(b.rows("nodes"), name="a", state="alive")


# --- faults


def test_serf_is_killed(net: Network) -> None:
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    agents = a.namespace.run("pgrep", "--ns", str(a.namespace.pid), "--nslist", "net", "serf").split()
    assert len(agents) == 1
    a.namespace.run("kill", "-9", *agents)
    say(a, "--name", "later", port=81)
    b.wait_for("later:81")
    for host in (a, b):
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
    assert served(b) == {("a", "web", 80), ("a", "later", 81)}
    assert ask(b) == "a"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_trap_handler_is_started_again(net: Network, how: signal.Signals) -> None:
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    a.server.send_signal(how)
    a.server.wait(PATIENCE)
    a.serve("--key-file", str(net.key), "--join", b.address)
    a.wait_for("web:80")
    for host in (a, b):
        host.command("nodes", "--wait", "--timeout", str(PATIENCE))
        eventually(lambda host=host: served(host) == {("a", "web", 80)})
    assert ask(b) == "a"
    say(b, "--name", "there", port=81)
    a.wait_for("there:81")


def test_a_firewall_that_lets_only_the_peer_port_through(net: Network) -> None:
    """A host that Serf holds for failed, though it can be reached: its instances are used when there is no other."""
    a, b = net.serve("a", "b")
    say(a)
    b.wait_for("web:80")
    rules = "add table inet t; add chain inet t in { type filter hook input priority 0; }; "
    b.namespace.run("nft", rules + "add rule inet t in tcp dport 7946 drop; add rule inet t in udp dport 7946 drop")
    a.namespace.run("nft", rules + "add rule inet t in tcp dport 7946 drop; add rule inet t in udp dport 7946 drop")
    eventually(lambda: only(b.rows("nodes"), name="a", state="suspect"))
    assert ask(b) == "a"
