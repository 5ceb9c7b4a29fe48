"""Whom a datagram doesn't reach, and under whose address no one sends."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.datagrams import ASK, PYTHON, SERVER, run, serve
from tests.harness import PATIENCE, Switch, eventually

REFUSED = """
c = udp()
try:
    c.connect((sys.argv[1], 7000))
    for _ in range(2):
        c.send(b"x")
        c.recv(9)
except OSError as error:
    print(errno.errorcode[error.errno])
"""


UNHEARD = """
c = udp()
c.settimeout(0.3)
try:
    c.sendto(b"x", (sys.argv[1], 7000))
    c.recv(9)
except (TimeoutError, ConnectionRefusedError):
    print("unheard")
"""


def test_a_loopback_socket_of_another_app(switch: Switch) -> None:
    log = serve(switch, "--ip", "10.9.9.1", "--name", "server", bound="127.0.0.1")
    switch.wait_for("server:7000")
    for dest in ("10.9.9.1", "127.0.0.1"):
        assert run(switch, "--ip", "10.9.9.2", code=REFUSED, arguments=(dest,)) == ["ECONNREFUSED"]
        assert run(switch, "--ip", "10.9.9.2", code=UNHEARD, arguments=(dest,)) == ["unheard"]
    assert log.read_text() == ""


def test_a_group_that_is_not_the_clients(switch: Switch) -> None:
    log = serve(switch, "--ip", "10.9.9.1", "--name", "db", "--tag", "grp=2")
    switch.wait_for("db:7000")
    friend = ("--tag", "grp=1", "--tag", "grp=2")
    for tags in (("--tag", "grp=1"), (), ("--ip", "10.9.9.1")):
        assert run(switch, *tags, code=REFUSED, arguments=("db",)) == ["ECONNREFUSED"]
        assert run(switch, *tags, code=UNHEARD, arguments=("db",)) == ["unheard"]
    assert log.read_text() == ""
    assert run(switch, *friend, code="print(ask(udp(), b'x', ('db', 7000))[0][1])") == ["b'x'"]


def test_addresses_and_ports_of_nobody(switch: Switch) -> None:
    server = switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", SERVER, "0.0.0.0", "7001", "")
    switch.wait_for("server:7001")
    assert run(switch, code=REFUSED, arguments=("10.9.9.1",)) == ["ECONNREFUSED"]
    assert run(switch, code=UNHEARD, arguments=("10.9.9.1",)) == ["unheard"]
    assert run(switch, code=REFUSED, arguments=("10.99.99.1",)) == ["ENETUNREACH"]
    code = "\ntry: udp().sendto(b'x', ('10.99.99.1', 7000))\nexcept OSError as e: print(errno.errorcode[e.errno])"
    assert run(switch, code=code) == ["ENETUNREACH"]
    server.kill()
    server.wait()
    eventually(lambda: not switch.rows("services"))
    assert run(switch, code=REFUSED, arguments=("10.9.9.1",)) == ["ECONNREFUSED"]


def test_an_app_without_a_namespace_that_has_no_datagrams(switch: Switch) -> None:
    switch.spawn("--no-netns", "--ip", "10.9.9.1", "sleep", "60")
    eventually(lambda: switch.rows("ps"))
    assert run(switch, code=REFUSED, arguments=("10.9.9.1",)) == ["ECONNREFUSED"]
    assert run(switch, code=UNHEARD, arguments=("10.9.9.1",)) == ["unheard"]


def test_exclusive(switch: Switch) -> None:
    serve(switch, "--exclusive", "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = "\ntry: udp().bind(('', 7000))\nexcept OSError as e: print(errno.errorcode[e.errno])"
    assert run(switch, "--ip", "10.9.9.1", code=code) == ["EADDRINUSE"]


# Sends under another app's address, and then, as itself, b"end".
FORGE = {
    "bind": """
c = udp()
try:
    c.bind((claimed, 0))
    c.sendto(b"forged", to)
except OSError as error:
    print(errno.errorcode[error.errno])
""",
    "pktinfo": """
import struct
c = udp()
info = struct.pack("=I4s4s", 0, socket.inet_aton(claimed), bytes(4))
try:
    c.sendmsg([b"forged"], [(socket.IPPROTO_IP, 8, info)], 0, to)
except OSError as error:
    print(errno.errorcode[error.errno])
""",
    "pktinfo connected": """
import struct
c = udp()
c.connect(to)
info = struct.pack("=I4s4s", 0, socket.inet_aton(claimed), bytes(4))
try:
    c.sendmsg([b"forged"], [(socket.IPPROTO_IP, 8, info)])
except OSError as error:
    print(errno.errorcode[error.errno])
""",
    "syscall": """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
c = udp()
name = (2).to_bytes(2, "little") + bytes(2) + socket.inet_aton(claimed) + bytes(8)
if libc.syscall(49, c.fileno(), name, 16):
    print(errno.errorcode[ctypes.get_errno()])
else:
    c.sendto(b"forged", to)
""",
}


HONEST = "\nprint(ask(udp(), b'end', to)[0][2][0])\n"


@pytest.mark.parametrize("how", FORGE)
@pytest.mark.parametrize("claimed", ["10.9.9.3", "10.9.9.1"])
def test_no_client_speaks_under_another_address(switch: Switch, how: str, claimed: str) -> None:
    log = serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.spawn("--ip", "10.9.9.3", "sleep", "60")
    switch.wait_for("server:7000")
    code = "to, claimed = ('10.9.9.1', 7000), sys.argv[1]\n" + FORGE[how] + HONEST
    said = run(switch, "--ip", "10.9.9.2", code=code, arguments=(claimed,))
    assert said[-1] == "10.9.9.2"
    if how in ("bind", "syscall"):
        assert said[0] == "EADDRNOTAVAIL"
    eventually(lambda: "end" in log.read_text())
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"10.9.9.2"}


# A static program, which no preload reaches: `forge CLAIMED DEST [FD...]` sends to DEST:7000 under the address CLAIMED,
# by sockets of its own and by those it is given; by the latter to 127.0.0.1:7001 as well.
FORGE_C = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static struct sockaddr_in at(const char *ip, int port) {
    struct sockaddr_in made = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, ip, &made.sin_addr);
    return made;
}

static int send_from(int fd, const char *claimed, struct sockaddr_in *to) {
    struct sockaddr_in source = at(claimed, 0);
    struct in_pktinfo info = {.ipi_spec_dst = source.sin_addr};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof info)];
    } beside = {.header = {.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)}};
    memcpy(CMSG_DATA(&beside.header), &info, sizeof info);
    struct iovec part = {"forged", 6};
    struct msghdr message = {.msg_name = to, .msg_namelen = to ? sizeof *to : 0, .msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = &beside, .msg_controllen = sizeof beside};
    return sendmsg(fd, &message, 0);
}

static void misuse(int fd, const char *claimed, struct sockaddr_in *to, struct sockaddr_in *secret) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    send_from(fd, claimed, 0);
    send_from(fd, claimed, to);
    sendto(fd, "forged", 6, MSG_DONTWAIT, (struct sockaddr *)secret, sizeof *secret);
    connect(fd, &none, sizeof none);
    send_from(fd, claimed, to);
    sendto(fd, "forged", 6, MSG_DONTWAIT, (struct sockaddr *)secret, sizeof *secret);
    connect(fd, (struct sockaddr *)secret, sizeof *secret);
    send(fd, "forged", 6, MSG_DONTWAIT);
}

int main(int count, char **argument) {
    struct sockaddr_in source = at(argument[1], 0), to = at(argument[2], 7000), secret = at("127.0.0.1", 7001);
    for (int i = 3; i < count; i++) misuse(atoi(argument[i]), argument[1], &to, &secret);
    int bound = socket(AF_INET, SOCK_DGRAM, 0), connected = socket(AF_INET, SOCK_DGRAM, 0), raw;
    bind(bound, (struct sockaddr *)&source, sizeof source);
    sendto(bound, "forged", 6, 0, (struct sockaddr *)&to, sizeof to);
    send_from(socket(AF_INET, SOCK_DGRAM, 0), argument[1], &to);
    connect(connected, (struct sockaddr *)&to, sizeof to);
    send_from(connected, argument[1], 0);
    raw = socket(AF_INET, SOCK_RAW, IPPROTO_UDP); /* root only */
    bind(raw, (struct sockaddr *)&source, sizeof source);
    unsigned char datagram[] = {0x9c, 0x40, 7000 >> 8, 7000 & 255, 0, 14, 0, 0, 'f', 'o', 'r', 'g', 'e', 'd'};
    to.sin_port = 0;
    sendto(raw, datagram, sizeof datagram, 0, (struct sockaddr *)&to, sizeof to);
    puts("tried");
    return 0;
}
"""


@pytest.fixture
def forge(switch: Switch) -> str:
    source, program = switch.directory / "forge.c", str(switch.directory / "forge")
    source.write_text(FORGE_C)
    subprocess.run(["gcc", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, str(source)], check=True)
    return program


@pytest.mark.program("gcc")
@pytest.mark.parametrize("claimed", ["10.9.9.3", "10.9.9.1", "127.0.0.1"])
def test_a_program_without_the_shim_reaches_no_one(switch: Switch, forge: str, claimed: str) -> None:
    log = serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.spawn("--ip", "10.9.9.3", "sleep", "60")
    switch.wait_for("server:7000")
    assert "tried" in switch.run("--ip", "10.9.9.2", forge, claimed, "10.9.9.1").stdout
    assert run(switch, "--ip", "10.9.9.2", code=f"to = ('10.9.9.1', 7000)\n{HONEST}") == ["10.9.9.2"]
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"10.9.9.2"}


@pytest.mark.program("gcc")
@pytest.mark.parametrize("claimed", ["10.9.9.3", "10.9.9.1", "127.0.0.1"])
def test_what_a_client_holds_is_no_way_round(switch: Switch, forge: str, claimed: str) -> None:
    """A hostile program sends honestly, and then gives every socket that it has to one that no shim watches."""
    server = """
import select, socket
def bound(*at):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(at)
    return s
secret, open = bound("127.0.0.1", 7001), bound("", 7000)
while True:
    for s in select.select([secret, open], [], [])[0]:
        data, peer = s.recvfrom(999)
        print("secret" if s is secret else peer[0], data, flush=True)
        s.sendto(repr((0, data, peer, 0)).encode(), peer)
"""
    process = switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", server)
    switch.spawn("--ip", "10.9.9.3", "sleep", "60")
    switch.wait_for("server:7000")
    code = """
import os, subprocess
to = ("10.9.9.1", 7000)
connected, unconnected = udp(), udp()
connected.connect(to)
for _ in range(4):
    ask(connected, b"x")
    ask(unconnected, b"x", to)
fds = [os.dup(int(fd)) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
for fd in fds:
    os.set_inheritable(fd, True)
subprocess.run([sys.argv[1], sys.argv[2], to[0], *map(str, fds)], pass_fds=fds, check=True)
"""
    assert run(switch, "--ip", "10.9.9.2", code=code, arguments=(forge, claimed))[-1] == "tried"
    assert run(switch, "--ip", "10.9.9.2", code=f"to = ('10.9.9.1', 7000)\n{HONEST}") == ["10.9.9.2"]
    heard: str = process.log.read_text()  # type: ignore[attr-defined]
    assert {line.split()[0] for line in heard.splitlines()} == {"10.9.9.2"}


# `steal FD`: takes the server's own address and port with a socket that was given to its client.
STEAL_C = r"""
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int count, char **argument) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(7000)};
    int fd = count == 2 ? atoi(argument[1]) : -1, on = 1;
    inet_pton(AF_INET, "10.9.9.1", &server.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (connect(fd, &none, sizeof none)) perror("connect");
    if (bind(fd, (struct sockaddr *)&server, sizeof server)) perror("bind");
    return 0;
}
"""


@pytest.mark.program("gcc")
@pytest.mark.parametrize("port", [0, 5000])
def test_a_client_takes_no_port_of_its_server(switch: Switch, port: int) -> None:
    source, program = switch.directory / "steal.c", str(switch.directory / "steal")
    source.write_text(STEAL_C)
    subprocess.run(["gcc", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, str(source)], check=True)
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = """
import subprocess
c = udp()
if int(sys.argv[1]):
    c.bind(("", int(sys.argv[1])))
c.connect(("10.9.9.1", 7000))
print(subprocess.run([sys.argv[2], str(c.fileno())], pass_fds=[c.fileno()], capture_output=True, text=True).stderr)
print(ask(udp(), b"theirs", ("10.9.9.1", 7000))[0][1])
"""
    said = run(switch, "--ip", "10.9.9.2", code=code, arguments=(str(port), program))
    assert said[0] == "bind: Invalid argument"
    assert said[-1] == "b'theirs'"


def sockets_of(switch: Switch) -> set[str]:
    """The inodes of all sockets that the trap handler and its apps have open."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) == os.getpid() or str(switch.trap).encode() not in (process / "environ").read_bytes():
                continue
            for fd in (process / "fd").iterdir():
                with suppress(OSError):
                    found.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


def knock(switch: Switch) -> int:
    """Sends to every UDP port and Unix datagram socket that they have here, in the host's namespace; how many."""
    mine = sockets_of(switch)
    doors = 0
    for table, ip in (("udp", "127.0.0.1"), ("udp6", "::1")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in mine:
                with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                    with suppress(OSError):
                        stranger.sendto(b"knock", (ip, int(fields[1].rpartition(":")[2], 16)))
                        doors += 1
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[4] == "0002" and fields[6] in mine:
            name = fields[7]
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
                with suppress(OSError):
                    stranger.sendto(b"knock", "\0" + name[1:] if name.startswith("@") else name)
                    doors += 1
    return doors


@pytest.mark.parametrize("kind", [[], ["--no-netns"]], ids=["namespace", "no namespace"])
def test_a_process_of_the_host_reaches_no_app(switch: Switch, kind: list[str]) -> None:
    log = serve(switch, *kind, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", 7000))
        with suppress(ConnectionRefusedError):
            stranger.send(b"knock")
            stranger.send(b"knock")
    knock(switch)
    assert run(switch, "--ip", "10.9.9.2", code="print(ask(udp(), b'end', ('10.9.9.1', 7000))[0][1])") == ["b'end'"]
    assert log.read_text().splitlines() == ["10.9.9.2 b'end'"]


def test_a_stranger_is_told_nothing_by_a_client_either(switch: Switch) -> None:
    """A client that waits for an answer hears only whom it asked."""
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = (
        "c = udp(); print(ask(c, b'x', ('10.9.9.1', 7000))[0][1], flush=True); sys.stdin.readline(); c.settimeout(0.2)"
    )
    code += "\ntry: print(c.recv(9))\nexcept TimeoutError: print('silence')"
    client = switch.spawn(
        "--ip", "10.9.9.2", PYTHON, "-c", ASK + code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    assert client.stdout
    assert client.stdout.readline() == "b'x'\n"
    knock(switch)
    assert client.communicate("\n", timeout=PATIENCE)[0] == "silence\n"
