"""A program and its peers in other apps: who they are to each other, and what is left when one has gone."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, Talker, eventually, running_switch, stop
from tests.shim.cases import VIP, Build, each_compiler

IPS = {
    "v4": ("10.77.1.1", "10.77.1.2"),
    "v6": ("fd00:77::1", "fd00:77::2"),
}
SYS_RECVMSG = {"x86_64": 47, "aarch64": 212}[os.uname().machine]

_numbers = itertools.count()


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    log: Path = process.log  # type: ignore[attr-defined]
    return log.read_text().splitlines()


def bare(text: str) -> str:
    """The address without port and brackets."""
    return text.rpartition(":")[0].strip("[]")


@each_compiler
@pytest.mark.parametrize(
    ("version", "bound", "dialled"),
    [
        ("v4", "0.0.0.0", "10.77.1.1"),
        ("v4", "10.77.1.1", "10.77.1.1"),
        ("v4", "::", "10.77.1.1"),
        ("v4", "::", "::ffff:10.77.1.1"),
        ("v4", "0.0.0.0", "::ffff:10.77.1.1"),
        ("v4", "::ffff:10.77.1.1", "10.77.1.1"),
        ("v6", "::", "fd00:77::1"),
        ("v6", "fd00:77::1", "fd00:77::1"),
    ],
)
def test_both_ends_agree(switch: Switch, build: Build, version: str, bound: str, dialled: str, compiler: str) -> None:
    server_ip, client_ip = IPS[version]
    name = f"agree-{next(_numbers)}"
    server = switch.spawn("--ip", server_ip, "--name", name, str(build("answer", compiler=compiler)), bound, "80")
    try:
        switch.wait_for(f"{name}:80")
        done = switch.run("--ip", client_ip, str(build("dialler", compiler=compiler)), dialled, "80", input="\n\n\n")
        eventually(lambda: len(lines_of(server)) == len(done.stdout.splitlines()))
        for client_says, server_says in zip(done.stdout.splitlines(), lines_of(server), strict=True):
            own, _, peer = client_says.partition(" to ")
            source, _, at = server_says.removeprefix("from ").partition(" at ")
            assert bare(own).removeprefix("::ffff:") == bare(source).removeprefix("::ffff:") == client_ip
            assert bare(peer).removeprefix("::ffff:") == bare(at).removeprefix("::ffff:") == server_ip
            assert own.rpartition(":")[2] == source.rpartition(":")[2]
            assert peer.rpartition(":")[2] == at.rpartition(":")[2] == "80"
            assert bare(own).startswith("::ffff:") == dialled.startswith("::ffff:")
            assert bare(source).startswith("::ffff:") == (bound in ("::", "::ffff:10.77.1.1") and version == "v4")
    finally:
        stop(server)


def test_a_server_that_goes_and_comes_back(switch: Switch, build: Build) -> None:
    """The client process lives on; its shim has learnt to connect by itself by then."""
    command = ("--ip", "10.77.2.1", "--name", "mortal", str(build("answer")), "0.0.0.0", "80")
    server = switch.spawn(*command)
    switch.wait_for("mortal:80")
    client = switch.spawn(
        "--ip", VIP, str(build("dialler")), "10.77.2.1", "80",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert client.stdin
    assert client.stdout

    def again() -> str:
        assert client.stdin
        assert client.stdout
        client.stdin.write("\n")
        client.stdin.flush()
        return client.stdout.readline()

    assert "to 10.77.2.1:80" in client.stdout.readline()
    for _ in range(3):
        for _ in range(4):
            assert "to 10.77.2.1:80" in again()
        stop(server)
        assert again() == f"errno {errno.ECONNREFUSED}\n"
        assert again() == f"errno {errno.ECONNREFUSED}\n"
        server = switch.spawn(*command)
        switch.wait_for("mortal:80")
    assert "to 10.77.2.1:80" in again()
    client.stdin.close()
    assert client.wait(10) == 0
    client.stdout.close()


def test_a_port_and_an_address_of_nobody(switch: Switch, build: Build) -> None:
    server = switch.spawn("--ip", "10.77.3.1", "--name", "alone", str(build("answer")), "0.0.0.0", "80")
    switch.wait_for("alone:80")
    dialler = str(build("dialler"))
    assert switch.run("--ip", VIP, dialler, "10.77.3.1", "81").stdout == f"errno {errno.ECONNREFUSED}\n"
    assert switch.run("--ip", VIP, dialler, "10.78.3.1", "80").stdout == f"errno {errno.ENETUNREACH}\n"
    assert switch.run("--ip", VIP, dialler, "127.0.0.1", "80").stdout == f"errno {errno.ECONNREFUSED}\n"
    stop(server)
    assert switch.run("--ip", VIP, dialler, "10.77.3.1", "80").stdout == f"errno {errno.ECONNREFUSED}\n"


def test_loopback_of_a_sibling(switch: Switch, build: Build) -> None:
    """127.0.0.1 reaches what another app with the same virtual IP serves, and nobody else's."""
    server = switch.spawn("--ip", "10.77.4.1", "--name", "sibling", str(build("answer")), "127.0.0.1", "80")
    switch.wait_for("sibling:80")
    dialler = str(build("dialler"))
    own, _, peer = switch.run("--ip", "10.77.4.1", dialler, "127.0.0.1", "80").stdout.strip().partition(" to ")
    assert (bare(own), peer) == ("127.0.0.1", "127.0.0.1:80")
    assert switch.run("--ip", "10.77.4.2", dialler, "127.0.0.1", "80").stdout == f"errno {errno.ECONNREFUSED}\n"
    assert switch.run("--ip", "10.77.4.2", dialler, "10.77.4.1", "80").stdout == f"errno {errno.ECONNREFUSED}\n"
    stop(server)


GIVER = """
import socket, sys
channel = socket.create_server(sys.argv[1], family=socket.AF_UNIX)
listener = socket.create_server(("", 80))
client = socket.create_connection(("taken.appswitch.local", 80))
print("ready", flush=True)
taker, _ = channel.accept()
socket.send_fds(taker, [b"x"], [listener.fileno(), client.fileno()])
"""
TAKER = """
import socket, sys
channel = socket.socket(socket.AF_UNIX)
channel.connect(sys.argv[1])
listener, client = (socket.socket(fileno=fd) for fd in socket.recv_fds(channel, 9, 2)[1])
listener.settimeout(20)
for _ in range(2):
    server, who = listener.accept()
    print(who[0], server.getsockname()[0])
    server.sendall(b"from the taker")
    server.close()
print(client.getsockname()[0], client.getpeername()[0], client.recv(99).decode())
"""


def test_sockets_passed_to_another_app(switch: Switch) -> None:
    """A listener and a connection stay what they are, and whose they are, in the hands of another app (SCM_RIGHTS)."""
    path = str(switch.directory / "channel")
    giver = switch.spawn(
        "--ip", "10.77.5.1", "--name", "taken", sys.executable, "-c", GIVER, path, stdout=subprocess.PIPE
    )
    assert giver.stdout
    assert giver.stdout.readline() == "ready\n"
    taker = switch.spawn("--ip", "10.77.5.2", sys.executable, "-c", TAKER, path, stdout=subprocess.PIPE)
    read = "import socket; print(socket.create_connection(('taken', 80)).recv(99).decode())"
    assert switch.run("--ip", "10.77.5.3", sys.executable, "-c", read).stdout == "from the taker\n"
    said, _ = taker.communicate(timeout=PATIENCE)
    # The first to be accepted is the giver's own connection, made before it passed both ends' descriptors on.
    own = "10.77.5.1 10.77.5.1"
    assert said.splitlines() == [own, "10.77.5.3 10.77.5.1", f"{own} from the taker"]
    assert giver.wait(PATIENCE) == 0
    giver.stdout.close()


def test_no_trap_handler(switch: Switch, build: Build) -> None:
    """The program is told by an errno, its user by one line."""
    shell = f"APPSWITCH_SOCKET=/nothing/there {build('dialler')} 10.77.1.1 80 <<END\n\n\nEND"
    done = switch.run("--ip", VIP, "sh", "-c", shell)
    assert set(done.stdout.splitlines()) == {f"errno {errno.ENETDOWN}"}
    assert done.stderr.count("no trap handler answers") == 1


def test_a_trap_handler_killed_with_a_request_in_its_queue(build: Build) -> None:
    """The next read of the channel is ECONNRESET then, not its end (unix(7)), and no descriptors have come by it."""
    with running_switch() as own:
        own.spawn("--name", "web", str(build("answer")), "0.0.0.0", "80")
        own.wait_for("web:80")
        ip = own.rows("resolve", "web")[0]["ip"]
        holder = Talker(own, "--name", "holder", str(build("holder")), ip, "80")
        pid = holder.hear()
        assert holder.hear() == "holds"
        own.server.send_signal(signal.SIGSTOP)
        holder.say("")
        eventually(lambda: Path(f"/proc/{pid}/syscall").read_text().startswith(f"{SYS_RECVMSG} "))
        own.kill_server()
        own.serve()
        assert holder.hear() == "16 of 16"
