"""Names, as programs ask for them, with /etc/resolv.conf as it is."""

from __future__ import annotations

import errno
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import dns.message
import dns.rcode
import dns.rrset
import pytest

from tests.harness import PATIENCE, Switch, Talker, eventually, free_port, running_switch, stop

PYTHON = sys.executable


@contextmanager
def fake_upstream() -> Iterator[int]:
    """A name server on loopback that knows example.com; the port."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", free_port()))

        def serve() -> None:
            while (query := server.recvfrom(4096))[0]:
                reply = dns.message.make_response(dns.message.from_wire(query[0]))
                if reply.question[0].name.to_text() == "example.com.":
                    reply.answer.append(dns.rrset.from_text("example.com.", 60, "IN", "A", "192.0.2.9"))
                else:
                    reply.set_rcode(dns.rcode.NXDOMAIN)
                server.sendto(reply.to_wire(), query[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.sendto(b"", server.getsockname())
            thread.join()


@pytest.fixture
def named() -> Iterator[Switch]:
    """Two apps with names, and an upstream."""
    with fake_upstream() as port, running_switch("--dns-upstream", f"127.0.0.1:{port}") as switch:
        for name, ip in (("web", "10.9.9.1"), ("six", "fd00::6")):
            switch.spawn("--name", name, "--ip", ip, PYTHON, "-m", "http.server", "8000", "--bind", ip)
            switch.wait_for(f"{name}:8000")
        yield switch


@pytest.mark.program("dig")
def test_dig(named: Switch) -> None:
    def dig(*arguments: str) -> str:
        return named.run("dig", "+tries=1", *arguments).stdout

    assert dig("+short", "web") == "10.9.9.1\n"
    assert dig("+short", "WEB.appswitch.local") == "10.9.9.1\n"
    assert dig("+short", "+tcp", "web") == "10.9.9.1\n"
    assert dig("+short", "six", "AAAA") == "fd00::6\n"
    assert dig("+short", "-x", "10.9.9.1") == "web.appswitch.local.\n"
    assert dig("+short", "-x", "fd00::6") == "six.appswitch.local.\n"
    for arguments, status in ((["web", "AAAA"], "NOERROR"), (["nothing.appswitch.local"], "NXDOMAIN")):
        answer = dig(*arguments)
        assert f"status: {status}" in answer
        assert "ANSWER: 0" in answer
    assert dig("+short", "example.com") == "192.0.2.9\n"
    assert dig("+short", "@192.0.2.53", "web") == "10.9.9.1\n", "whatever server is asked, also by IPv6:"
    assert dig("+short", "@2001:db8::53", "web") == "10.9.9.1\n"
    assert "status: NXDOMAIN" in dig("other.example")


@pytest.fixture
def many(switch: Switch) -> Switch:
    """An app that serves 100 ports, and another one with postgres's."""
    code = "import socket, sys; all = [socket.create_server(('', p)) for p in eval(sys.argv[1])]; all[0].accept()"
    switch.spawn("--name", "many", "--ip", "10.9.9.1", PYTHON, "-c", code, "range(9000, 9100)")
    switch.spawn("--name", "db", "--ip", "fd00::5", PYTHON, "-c", code.replace("''", "'::'").replace(
        "('::', p)", "('::', p), family=socket.AF_INET6"), "[5432, 8080]")  # fmt: skip
    switch.wait_for("many:9099", "db:8080")
    return switch


@pytest.mark.program("dig")
def test_dig_srv(many: Switch) -> None:
    def dig(*arguments: str) -> str:
        return many.run("dig", "+tries=1", *arguments).stdout

    assert dig("+short", "_9003._tcp.many", "SRV") == "0 1 9003 many.appswitch.local.\n"
    assert dig("+short", "_postgresql._tcp.db.appswitch.local", "SRV") == "0 1 5432 db.appswitch.local.\n"
    answer = dig("db", "SRV")
    assert sorted(re.findall(r"0 1 (\d+) db.appswitch.local.", answer)) == ["5432", "8080"]
    assert re.search(r"db.appswitch.local.\s+\d+\s+IN\s+AAAA\s+fd00::5", answer)
    assert "status: NXDOMAIN" in dig("_1._tcp.many", "SRV")
    absent = dig("many", "AAAA")
    assert "status: NOERROR" in absent
    assert re.search(r"SOA\s+ns.appswitch.local.", absent)


@pytest.mark.program("dig")
def test_dig_asks_again_over_tcp_what_is_too_long_for_a_datagram(many: Switch) -> None:
    def dig(*arguments: str) -> str:
        return many.run("dig", "+tries=1", "many", "SRV", *arguments).stdout

    cut = dig("+ignore", "+noedns")
    assert re.search(r"flags:[a-z ]* tc", cut)
    assert "many.appswitch.local. IN" not in cut
    for flags in ([], ["+tcp"], ["+noedns"]):
        whole = dig(*flags)
        assert len(re.findall(r"SRV\s+0 1 90\d\d many", whole)) == 100
        assert not re.search(r"flags:[a-z ]* tc", whole)
    assert "Truncated, retrying in TCP mode" in dig()


@pytest.mark.program("node")
def test_srv_by_node_and_dnspython(many: Switch) -> None:
    code = "require('dns').resolveSrv('many', (error, all) => console.log(error || all.map(each => each.port).length))"
    assert many.run("node", "-e", code).stdout == "100\n"
    code = """
import dns.resolver
print(*sorted(each.port for each in dns.resolver.resolve("db.appswitch.local", "SRV")))
try:
    dns.resolver.resolve("many.appswitch.local", "AAAA")
except dns.resolver.NoAnswer as error:
    print(error.response().authority[0][0].minimum)
"""
    assert many.run(PYTHON, "-c", code).stdout == "5432 8080\n1\n"


def test_getent(many: Switch) -> None:
    """Glibc's own view, with both address families asked for."""
    assert many.run("getent", "ahosts", "many").stdout.split()[0] == "10.9.9.1"
    assert many.run("getent", "hosts", "db.appswitch.local").stdout.split() == ["fd00::5", "db.appswitch.local"]
    assert many.run("getent", "ahosts", "nothing", check=False).returncode == 2


@pytest.mark.root
@pytest.mark.program("unshare")
def test_search_suffixes(many: Switch) -> None:
    """Those of the program's own resolv.conf, which glibc tries one after the other."""
    conf = many.directory / "resolv.conf"
    conf.write_text("nameserver 192.0.2.1\nsearch appswitch.local other.example\noptions ndots:5\n")
    script = f"mount --bind {conf} /etc/resolv.conf && getent ahosts many && getent hosts db"
    done = many.run("unshare", "-m", "sh", "-c", script)
    assert done.stdout.split()[0] == "10.9.9.1"
    assert done.stdout.splitlines()[-1].split()[0] == "fd00::5"


GLIBC = """
import socket, sys
print(socket.getaddrinfo(sys.argv[1], 8000, type=socket.SOCK_STREAM)[0][4][0])
print(socket.getnameinfo((sys.argv[2], 8000), socket.NI_NUMERICSERV)[0])
socket.create_connection((sys.argv[1], 8000), timeout=20)
try:
    socket.getaddrinfo("nothing.appswitch.local", 1)
except socket.gaierror as error:
    print(error.errno == socket.EAI_NONAME)
"""


@pytest.mark.parametrize(("name", "ip"), [("web", "10.9.9.1"), ("six", "fd00::6")])
def test_glibc(named: Switch, name: str, ip: str) -> None:
    done = named.run(PYTHON, "-c", GLIBC, name, ip)
    assert done.stdout == f"{ip}\n{name}.appswitch.local\nTrue\n"


@pytest.mark.parametrize(("name", "ip"), [("web", "10.9.9.1"), ("six", "fd00::6")])
def test_without_a_namespace(named: Switch, name: str, ip: str) -> None:
    code = "import socket, sys; print(socket.create_connection((sys.argv[1], 8000), timeout=20).getpeername()[0])"
    assert named.run("--no-netns", PYTHON, "-c", code, name).stdout == f"{ip}\n"


def test_names_go_with_their_apps(named: Switch) -> None:
    assert named.rows("resolve", "web") == [
        {"name": "web", "fqdn": "web.appswitch.local", "ip": "10.9.9.1", "instances": 1}
    ]
    taken = named.command("spawn", "--name", "web", "--ip", "10.9.9.2", "true", check=False)
    assert taken.returncode == 125
    assert "stands for 10.9.9.1 already" in taken.stderr
    assert "hint:" in taken.stderr
    unknown = named.command("resolve", "nothing", check=False)
    assert unknown.returncode == 1
    assert "no app is named 'nothing'" in unknown.stderr


# Resolves and connects for each line of input; says who answered from where.
ASKING = """
import socket, sys
for name in sys.stdin:
    try:
        with socket.create_connection((name.strip(), 8000), timeout=20) as c:
            print(c.getpeername()[0], c.recv(99).decode(), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
SAYING = (
    "import socket, sys; s = socket.create_server(('', 8000))\nwhile True: s.accept()[0].sendall(sys.argv[1].encode())"
)


def test_a_name_that_another_app_takes_over_leads_there_at_once(switch: Switch) -> None:
    """Also for a program that has connected to the one before, by capability at last."""
    client = Talker(switch, PYTHON, "-c", ASKING)
    assert client.ask("web") == "gaierror"
    for ip in (["--ip", "10.9.9.1"], ["--ip", "10.9.9.2"], []):
        server = switch.spawn("--name", "web", *ip, PYTHON, "-c", SAYING, ip[-1] if ip else "derived")
        switch.wait_for("web:8000")
        (row,) = switch.rows("resolve", "web")
        assert [client.ask("web") for _ in range(4)] == [f"{row['ip']} {ip[-1] if ip else 'derived'}"] * 4
        stop(server)
        eventually(lambda: switch.rows("ps")[1:] == [])
        assert client.ask("web") == "gaierror"


# For each line of input, the name's address, as often as it says.
LOOKING_UP = """
import socket, sys
for line in sys.stdin:
    for _ in range(int(line)):
        found = socket.getaddrinfo("web", 80, type=socket.SOCK_STREAM)
    print(found[0][4][0], flush=True)
"""


@pytest.mark.parametrize("flags", [["--name", "client"], ["--name", "client", "--no-netns"]], ids=["netns", "no-netns"])
def test_a_name_that_comes_up_again_is_kept(switch: Switch, flags: list[str]) -> None:
    """Nobody is asked: the trap handler stands still meanwhile. Who observes has all of them."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", SAYING, "web")
    switch.wait_for("web:8000")
    client = Talker(switch, *flags, PYTHON, "-c", LOOKING_UP)

    def told() -> int:
        return sum(each["kind"] == "resolve" and each["query"] == "web" for each in switch.events())

    assert client.ask("1") == "10.9.9.1"
    one = told()
    assert client.ask("3") == "10.9.9.1"
    switch.server.send_signal(signal.SIGSTOP)
    waking = threading.Timer(PATIENCE / 2, switch.server.send_signal, [signal.SIGCONT])
    waking.start()
    try:
        began = time.monotonic()
        assert client.ask("1000") == "10.9.9.1"
        assert time.monotonic() - began < PATIENCE / 2
    finally:
        waking.cancel()
        switch.server.send_signal(signal.SIGCONT)
    assert told() <= 3 * one  # the second time it was kept


def test_one_name_is_one_service_whoever_bears_it(switch: Switch) -> None:
    """With the same IP, with none, and in other letters."""
    for number, flags in enumerate((["--ip", "10.9.9.1"], ["--ip", "10.9.9.1"], [])):
        switch.spawn("--name", "Web" if number else "web", *flags, PYTHON, "-c", SAYING, str(number))
        switch.wait_for("web:8000")  # the name has its IP
    eventually(lambda: len(switch.rows("services")) == 3)
    assert {(row["name"], row["ip"]) for row in switch.rows("services")} == {("web", "10.9.9.1")}
    assert [(app["name"], app["ip"]) for app in switch.rows("ps")] == [("web", "10.9.9.1")] * 3
    said = switch.run(PYTHON, "-c", ASKING, input="web\nWEB\nweb.AppSwitch.local\n").stdout.splitlines()
    assert len(said) == 3
    assert all(line.startswith("10.9.9.1 ") for line in said)


# Serves on port 8000, connects to itself, says its own address; then tries where it is told to.
PRIVATE = """
import socket, sys
s = socket.create_server(("", 8000))
with socket.create_connection(("127.0.0.1", 8000)) as c:
    own = s.accept()[0].getpeername()[0]
print(own, flush=True)
s.close()
for place in sys.stdin:
    try:
        socket.create_connection((place.strip(), 8000), timeout=20).close()
        print("reached", flush=True)
    except OSError as error:
        print(type(error).__name__, error.errno, flush=True)
"""


def test_apps_without_a_name_keep_what_they_serve_to_themselves(switch: Switch) -> None:
    server = [PYTHON, "-c", "import socket; s = socket.create_server(('', 8000))\nwhile True: s.accept()[0].close()"]
    for _ in range(2):
        switch.spawn(*server)
    eventually(lambda: len(switch.rows("services")) == 2)
    apps = switch.rows("ps")
    addresses = [app["ip"] for app in apps]
    assert [app["name"] for app in apps] == [None, None]
    assert all(ip.startswith("169.254.") for ip in addresses)
    assert len(set(addresses)) == 2
    places = "".join(f"{place}\n" for place in (*addresses, "127.0.0.1"))
    for who in ([], ["--name", "named"]):
        said = switch.run(*who, PYTHON, "-c", PRIVATE, input=places).stdout.splitlines()
        assert said[0] == "127.0.0.1"
        assert said[1:] == [f"OSError {errno.ENETUNREACH}"] * 2 + [f"ConnectionRefusedError {errno.ECONNREFUSED}"]
