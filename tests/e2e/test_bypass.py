"""`--bypass`: real programs on a host that is no gateway, with servers outside and on the host itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from appswitch.host.paths import shim_path
from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import PATIENCE, Switch, Talker, eventually, reload
from tests.hosts import INTERNET, INTERNET6, Host, Namespace, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "dnsmasq", "dig", "busybox-static")]

SERVER, SERVER6, OTHER, NAMES = f"{INTERNET}1", f"{INTERNET6}1", f"{INTERNET}2", f"{INTERNET}9"
OWN, OWN6 = f"{INTERNET}101", f"{INTERNET6}101"
ALL = f"{INTERNET}0/24"
LOOPBACK_PORT = 8080
RECORDS = {"www.shop.example": SERVER, "inside.shop.example": "10.99.0.1"}
UNREACHABLE = "7"  # of curl(1): Failed to connect

NGINX = """
daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}-error.log; user root;
events {{}}
http {{ access_log off; server {{ {listen} return 200 "{name} $remote_addr\\n"; }} }}
"""
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 7))
    while True:
        data, peer = s.recvfrom(99)
        s.sendto(peer[0].encode(), peer)
"""


@frozen
class World:
    host: Host
    outside: Namespace
    policy: Path
    flags: tuple[str, ...]
    """Of the host's trap handler."""

    def reload(self, text: str) -> None:
        """Another policy."""
        reload(self.host, self.policy, text, "rules=")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("bypass")
    policy = directory / "policy.toml"
    policy.write_text("")
    with network() as net:
        host = net.add("h")
        outside = net.internet(host)
        places = {outside: ("outside", "listen 80; listen [::]:80;"),
                  host.namespace: ("inside", f"listen 127.0.0.1:{LOOPBACK_PORT};")}  # fmt: skip
        for namespace, (name, listen) in places.items():
            (directory / f"{name}.conf").write_text(NGINX.format(dir=directory, name=name, listen=listen))
            namespace.start("nginx", "-c", f"{directory}/{name}.conf", log=directory / f"{name}.log")
        records = [f"--address=/{name}/{ip}" for name, ip in RECORDS.items()]
        outside.start("dnsmasq", *DNSMASQ, "--local-ttl=60", *records, log=directory / "dnsmasq.log")
        outside.start(sys.executable, "-c", ECHO, log=directory / "echo.log")
        flags = ("--key-file", str(net.key), "--dns-upstream", NAMES, "--policy", str(policy))
        host.serve(*flags)
        eventually(lambda: host.namespace.run("curl", "-s", f"http://{SERVER}/") == f"outside {OWN}\n")
        eventually(lambda: outside.run("ss", "-Hlnu", "sport", "= :7"))
        yield World(host, outside, policy, flags)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    yield shared
    shared.host.end_apps()
    eventually(lambda: not shared.host.rows("ps"))


@pytest.fixture
def host(world: World) -> Host:
    return world.host


def curl(host: Host, url: str, *arguments: str) -> str:
    """What an app gets, or curl's exit status."""
    done = host.run(*arguments, "--", "curl", "-sS", "-g", "-m", "10", url, check=False)
    return done.stdout.strip() or str(done.returncode)


@pytest.mark.parametrize("netns", [(), ("--no-netns",)], ids=["namespace", "no-netns"])
def test_a_network_outside(host: Host, netns: tuple[str, ...]) -> None:
    url = f"http://{SERVER}/"
    assert curl(host, url, *netns) == UNREACHABLE, "this host is no gateway"
    assert curl(host, url, *netns, "--bypass", ALL) == f"outside {OWN}"
    assert curl(host, url, *netns, "--bypass", f"{SERVER}:79-80") == f"outside {OWN}"
    assert curl(host, url, *netns, "--bypass", f"{SERVER}:81", "--bypass", OTHER) == UNREACHABLE
    assert curl(host, f"http://[{SERVER6}]/", *netns, "--bypass", f"[{SERVER6}]:80") == f"outside {OWN6}"


@pytest.mark.parametrize("netns", [(), ("--no-netns",)], ids=["namespace", "no-netns"])
def test_the_hosts_loopback(host: Host, netns: tuple[str, ...]) -> None:
    """When it is named; and other ports of 127.0.0.1 stay the app's own."""
    url = f"http://127.0.0.1:{LOOPBACK_PORT}/"
    assert curl(host, url, *netns, "--ip", "10.9.9.1") == UNREACHABLE
    assert curl(host, url, *netns, "--ip", "10.9.9.1", "--bypass", "0.0.0.0/0") == UNREACHABLE
    assert curl(host, url, *netns, "--ip", "10.9.9.1", "--bypass", f"localhost:{LOOPBACK_PORT}") == "inside 127.0.0.1"
    own = [sys.executable, "-m", "http.server", "8000", "--bind", "127.0.0.1"]
    host.spawn("--ip", "10.9.9.1", *netns, "--bypass", f"127.0.0.1:{LOOPBACK_PORT}", *own)
    eventually(lambda: host.rows("services"))
    assert curl(host, "http://127.0.0.1:8000/", "--ip", "10.9.9.1", "--bypass", f"127.0.0.1:{LOOPBACK_PORT}") != "7"


def test_by_name(host: Host) -> None:
    host.spawn("--name", "web", sys.executable, "-m", "http.server", "80")
    host.wait_for("web:80")
    shop = ("--bypass", "*.shop.example:80")
    assert curl(host, f"http://{SERVER}/", *shop) == UNREACHABLE, "nobody has asked for its name"
    assert curl(host, "http://www.shop.example/", *shop) == f"outside {OWN}"
    assert curl(host, "http://www.shop.example/", "--bypass", "*.other.example") == UNREACHABLE
    assert curl(host, "http://inside.shop.example/", "--name", "c", *shop) == UNREACHABLE, "it isn't public"
    assert "isn't public" in host.events("--kind", "refuse", "--app", "c")[0]["reason"]
    assert "Directory listing" in curl(host, "http://web/", "--bypass", "*", "--bypass", "0.0.0.0/0"), "apps stay"


BY_HOST = """
import socket, sys
try:
    socket.getaddrinfo("www.shop.example", 80)
except socket.gaierror:
    pass  # the machine's own name server, which knows it not
print(socket.create_connection((sys.argv[1], 80)).getpeername()[0])
"""


def test_by_name_where_the_hosts_resolver_is_asked(host: Host) -> None:
    """The trap handler, which learns of the question, asks it as well."""
    client = [sys.executable, "-c", BY_HOST, SERVER]
    assert host.run("--no-netns", "--bypass", "www.shop.example", *client).stdout == f"{SERVER}\n"


def test_dig(host: Host) -> None:
    """AppSwitch's DNS server answers on every address, unless port 53 of it is named."""
    ask = ["dig", "+short", "+tries=1", f"@{NAMES}", "web", "www.shop.example"]
    host.spawn("--name", "web", "--ip", "10.9.9.7", "sleep", "60")
    eventually(lambda: host.rows("ps"))
    for flags in [], ["+tcp"]:
        told = host.run("--bypass", ALL, *ask[:1], *flags, *ask[1:]).stdout
        assert told.split() == ["10.9.9.7", SERVER], "port 53 isn't named"
        told = host.run("--bypass", f"{NAMES}:53", *ask[:1], *flags, *ask[1:]).stdout
        assert told.split() == [SERVER], "that name server knows no apps"


DATAGRAMS = """
import errno, socket, sys
for connected in True, False:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(20)
        try:
            if connected:
                s.connect((sys.argv[1], 7))
                s.send(b"x")
                print(s.getsockname()[0], end=" ")
            else:
                s.sendto(b"x", (sys.argv[1], 7))
            print(s.recv(99).decode())
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("netns", [(), ("--no-netns",)], ids=["namespace", "no-netns"])
def test_udp(host: Host, netns: tuple[str, ...]) -> None:
    client = [sys.executable, "-c", DATAGRAMS, SERVER]
    assert host.run(*netns, *client).stdout.split() == ["ENETUNREACH"] * 2
    name = f"udp{len(netns)}"
    said = host.run(*netns, "--name", name, "--bypass", f"{SERVER}:7", *client).stdout
    assert said.splitlines() == [f"{OWN} {OWN}", OWN]
    told = host.events("--kind", "connect", "--app", name)
    assert [(each["address"], each["port"], each["proto"], each["medium"]) for each in told] == [
        (SERVER, 7, "udp", "bypass")
    ] * 2


@pytest.mark.usefixtures("traced")
def test_a_static_program(host: Host) -> None:
    wget = ["busybox", "wget", "-q", "-O", "-", f"http://{SERVER}/"]
    assert host.run(*wget, check=False).returncode == 1
    assert host.run("--bypass", ALL, *wget).stdout == f"outside {OWN}\n"


@pytest.fixture(params=["notify", "ptrace"])
def traced(request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(host.environment, "APPSWITCH_TRACER", request.param)


KEEP = """
import socket, sys
for line in sys.stdin:
    with socket.create_connection((sys.argv[1], 80)) as s:
        print(*s.getsockname()[:1], *s.getpeername(), flush=True)
        sys.stdin.readline()
"""


def start(host: Host, *arguments: str) -> Talker:
    return Talker(host, *arguments, sys.executable, "-c", KEEP, SERVER)


def test_who_shows_it(host: Host) -> None:
    client = start(host, "--name", "client", "--bypass", ALL, "--bypass", "*.x.example:1-2,3")
    assert client.ask("") == f"{OWN} {SERVER} 80", "the host's address, not the app's: it is the host's network"
    (row,) = host.rows("connections")
    shown = [row[each] for each in ("client_name", "client_ip", "dest_ip", "dest_port", "server_app", "medium")]
    assert shown == ["client", OWN, SERVER, 80, None, "bypass"]
    (told,) = host.events("--kind", "connect", "--app", "client")
    assert (told["medium"], told["rule"], told["address"]) == ("bypass", "egress", SERVER)
    (app,) = host.rows("ps")
    assert app["bypass"] == [ALL, "*.x.example:1-2,3"]
    why = json.loads(host.command("why", "client", f"{SERVER}:80", "--json").stdout)
    assert (why["verdict"], why["rule"]) == ("bypass", "egress")
    assert f"--bypass {ALL}" in why["reason"]
    client.process.communicate("\n", timeout=PATIENCE)
    assert host.rows("connections") == []


DENY = f'[[rule]]\nname = "not-there"\naction = "deny"\nto = {{ cidr = "{SERVER}" }}\ncut = true\n'


def test_a_rule_wins(world: World, host: Host) -> None:
    """Over what a user of spawn says; it cuts what is there, too."""
    client = start(host, "--name", "client", "--bypass", ALL)
    assert client.ask("").startswith(OWN)
    world.reload(DENY)
    try:
        eventually(lambda: not host.rows("connections"))
        client.process.communicate("\n", timeout=PATIENCE)
        assert curl(host, f"http://{SERVER}/", "--name", "other", "--bypass", ALL) == UNREACHABLE
        (denied,) = host.events("--kind", "deny", "--app", "other")
        assert (denied["rule"], denied["errno"]) == ("not-there", "ECONNREFUSED")
        host.spawn("--name", "third", "--bypass", ALL, "sleep", "60")
        eventually(lambda: [row["name"] for row in host.rows("ps")] == ["third"])
        assert host.command("why", "third", f"{SERVER}:80", check=False).stdout.startswith("deny: ")
    finally:
        world.reload("")
    assert curl(host, f"http://{SERVER}/", "--bypass", ALL) == f"outside {OWN}"


def test_it_outlives_the_trap_handler(world: World, host: Host) -> None:
    clients = [start(host, "--name", f"c{number}", *flags, "--bypass", ALL)
               for number, flags in enumerate(([], ["--no-netns"]))]  # fmt: skip
    for each in clients:
        assert each.ask("").startswith(OWN)
    host.kill_server()
    host.serve(*world.flags)
    for each in clients:
        each.say("")
        assert each.ask("").startswith(OWN)
        each.process.communicate("\n", timeout=PATIENCE)


def test_ld_preload_alone(host: Host) -> None:
    def ask(bypass: str) -> subprocess.CompletedProcess[str]:
        variables = {**host.environment, "LD_PRELOAD": str(shim_path()), "APPSWITCH_BYPASS": bypass}
        command = [
            *host.namespace.enter,
            "env",
            *(f"{key}={variables[key]}" for key in ("LD_PRELOAD", "APPSWITCH_BYPASS")),
        ]
        return subprocess.run(
            [*command, "curl", "-sS", f"http://{SERVER}/"], env=host.environment, capture_output=True, text=True,
            check=False, timeout=PATIENCE,
        )  # fmt: skip

    assert ask(f"10.0.0.0/8:80,81 {ALL}").stdout == f"outside {OWN}\n"
    assert ask(f"10.0.0.0/8:80,81 {OTHER}").returncode == int(UNREACHABLE)
    wrong = ask("10.0.0.1/8")
    assert "has host bits set" in wrong.stderr
    assert "hint: look at the APPSWITCH_ variables" in wrong.stderr


def test_compose(host: Host, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services:\n  get:\n    healthcheck: {disable: true}\n"
        f"    command: curl -sS http://{SERVER}/\n    x-appswitch: {{bypass: ['{SERVER}:80']}}\n"
    )
    shown = host.command("compose", "config", cwd=tmp_path).stdout
    assert re.search(rf"bypass:\s+- {SERVER}:80", shown), shown
    assert f"outside {OWN}" in host.command("compose", "up", cwd=tmp_path).stdout


@pytest.mark.parametrize(("value", "why"), [("10.0.0.1/8", "host bits"), ("db", "has no dot"), ("x:0", "'0'")])
@pytest.mark.parametrize("netns", [(), ("--no-netns",)], ids=["namespace", "no-netns"])
def test_what_it_cant_be(host: Host, netns: tuple[str, ...], value: str, why: str) -> None:
    done = host.run(*netns, "--bypass", value, "true", check=False)
    assert done.returncode == 2
    assert why in done.stderr
    assert "hint: " in done.stderr


def test_no_gateway_is_taken(tmp_path: Path) -> None:
    """Where the cluster has one."""
    with network() as net:
        gateway, inner = net.serve("g", "inner", gateways=["g"])
        outside = net.internet(gateway, inner)
        (tmp_path / "n.conf").write_text(NGINX.format(dir=tmp_path, name="n", listen="listen 80;"))
        outside.start("nginx", "-c", f"{tmp_path}/n.conf", log=tmp_path / "n.log")
        eventually(lambda: inner.namespace.run("curl", "-s", f"http://{SERVER}/").startswith("n "))
        eventually(lambda: any(row["gateway"] for row in inner.rows("nodes")))
        assert curl(inner, f"http://{SERVER}/") == f"n {INTERNET}101", "the gateway's"
        assert curl(inner, f"http://{SERVER}/", "--bypass", ALL) == f"n {INTERNET}102", "its own host's"


def test_an_ordinary_user(switch: Switch, tmp_path: Path) -> None:
    """Nothing but the host's loopback, and no privilege."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        assert server.stdout
        found = re.search(r"port (\d+)", server.stdout.readline())
        assert found
        url = f"http://127.0.0.1:{found[1]}/"
        assert switch.run("curl", "-sS", url, check=False).returncode == int(UNREACHABLE)
        assert "Directory listing" in switch.run("--bypass", "127.0.0.1", "curl", "-sS", url).stdout
        server.terminate()
