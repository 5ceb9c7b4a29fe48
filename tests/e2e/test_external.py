"""External servers: real ones, in a namespace that only the gateway reaches, under a name and an IP of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_policy_outside import NGINX, REFUSED, curl
from tests.e2e.test_real_programs import postgres_programs
from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import PATIENCE, eventually
from tests.hosts import INTERNET, INTERNET6, Host, Namespace, Network, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "dnsmasq", "psql", "setpriv", "busybox")]

ONE, OTHER, NAMES = INTERNET + "1", INTERNET + "2", INTERNET + "9"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
RECORDS = {"db.example": ONE, "both.example": OTHER, "loopback.example": "127.0.0.1"}


class World:
    """A network and what is outside."""

    def __init__(self, net: Network, directory: Path) -> None:
        self.net = net
        self.directory = directory
        self.host = net.add("gw")
        self.outside = net.internet(self.host)
        records = [f"--address=/{name}/{ip}" for name, ip in RECORDS.items()]
        self.outside.start("dnsmasq", *DNSMASQ, *records, log=directory / "dnsmasq.log")
        self.serve()

    def serve(self) -> None:
        self.host.serve("--gateway", "--key-file", str(self.net.key), "--dns-upstream", NAMES)

    def nginx(self, ip: str) -> subprocess.Popen[str]:
        """A web server outside at this address alone; it says which."""
        config = NGINX.replace("listen 80", f"listen {ip}:80").format(dir=self.directory)
        (self.directory / f"{ip}.conf").write_text(config.replace("nginx.pid", f"{ip}.pid"))
        return self.outside.start("nginx", "-c", f"{self.directory}/{ip}.conf", log=self.directory / f"{ip}.log")

    def states(self, name: str) -> dict[str, str]:
        rows = self.host.rows("external", "list")
        return {row["backend"]: row["state"] for row in rows if row["name"] == name}


def start_postgres(outside: Namespace, directory: Path) -> None:
    """A managed database at ONE."""
    programs, data = postgres_programs(), directory / "data"
    data.mkdir()
    os.chown(data, 65534, 65534)
    outside.run(*NOBODY, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "nobody")
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 0.0.0.0/0 trust\n")
    command = [str(programs / "postgres"), "-D", str(data), "-k", str(data), "-h", ONE]
    outside.start(*NOBODY, *command, log=directory / "postgres.log")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with network() as net:
        yield World(net, tmp_path)


PSQL = ["psql", "-h", "orders", "-U", "nobody", "-d", "postgres", "-At", "-c"]


def test_psql_to_a_postgres_outside(world: World) -> None:
    """And by another life of the trap handler, too: what was registered is kept."""
    start_postgres(world.outside, world.host.directory)
    host = world.host
    said = host.command("external", "add", "orders", "--ip", "10.9.9.9", "5432:db.example:5432").stdout
    assert said == "orders is 10.9.9.9\n"
    eventually(lambda: world.states("orders") == {"db.example:5432": "up"})
    where = "select host(inet_server_addr()), 40 + 2"
    assert host.run("--name", "shop", *PSQL, where).stdout == f"{ONE}|42\n"
    (row,) = host.rows("services")
    assert (row["name"], row["ip"], row["port"], row["medium"], row["scope"], row["real"]) == (
        "orders", "10.9.9.9", 5432, "tcp", "public", "tcp:db.example:5432"
    )  # fmt: skip
    waiting = host.spawn("--name", "shop", *PSQL[:-1], stdin=subprocess.PIPE)
    eventually(lambda: host.rows("connections"))
    (connection,) = host.rows("connections")
    assert (connection["client_name"], connection["server_name"], connection["dest_ip"], connection["dest_port"]) == (
        "shop", "orders", "10.9.9.9", 5432
    )  # fmt: skip
    assert connection["medium"] == "tcp"
    waiting.communicate(timeout=PATIENCE)
    host.server.terminate()
    host.server.wait()
    world.serve()
    assert host.run("--name", "shop", *PSQL, where).stdout == f"{ONE}|42\n"
    host.command("external", "rm", "orders")
    assert host.rows("external", "list") == []
    assert host.run("--name", "shop", *PSQL, where, check=False).returncode == 2


SEE = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80))
print(s.getsockname()[0], *s.getpeername()[:2])
"""
DATAGRAM = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 80))
s.send(b"x")
try:
    s.recv(1)
except OSError as error:
    print(type(error).__name__)
"""


def test_what_a_client_sees_of_it(world: World) -> None:
    """Whatever the IP versions are of virtual IP and backend; also without a namespace, and a static program."""
    world.nginx(ONE)
    world.nginx(f"[{INTERNET6}1]")
    host = world.host
    pairs = [(ip, backend) for ip in ("10.9.9.9", "fd00::9") for backend in (ONE, f"[{INTERNET6}1]")]
    for number, (ip, backend) in enumerate(pairs):
        name = f"site{number}"
        host.command("external", "add", name, "--ip", ip, f"80:{backend}:80")
        done = host.run("--ip", "10.9.9.1", sys.executable, "-c", SEE, name)
        own = "10.9.9.1" if "." in ip else "fd61:7073:7769::a09:901"
        assert done.stdout == f"{own} {ip} 80\n"
        for how in (["curl", "-sS"], ["--no-netns", "curl", "-sS"], ["busybox", "wget", "-qO-"]):
            assert host.run(*how, f"http://{name}/").stdout == backend.strip("[]") + "\n", (name, how)
        host.command("external", "rm", name)


def test_beside_the_server(world: World) -> None:
    """An app with its virtual IP finds it on localhost; by UDP nobody is there."""
    world.nginx(ONE)
    host = world.host
    host.command("external", "add", "site", "--ip", "10.9.9.9", f"80:{ONE}:80")
    assert host.run("--ip", "10.9.9.9", "curl", "-sS", "http://127.0.0.1/").stdout == f"{ONE}\n"
    assert host.run(sys.executable, "-c", DATAGRAM, "site").stdout == "ConnectionRefusedError\n"


def test_it_can_be_drained(world: World) -> None:
    world.nginx(ONE)
    host = world.host
    host.command("external", "add", "site", f"80:{ONE}:80")
    host.command("drain", "site")
    assert curl(host, "web", "http://site/") == REFUSED
    host.command("drain", "--undo", "site")
    assert curl(host, "web", "http://site/") == ONE


def test_several_backends_and_one_that_fails(world: World) -> None:
    one, _ = world.nginx(ONE), world.nginx(OTHER)
    host = world.host
    host.command("external", "add", "site", f"80:{ONE}:80", "80:both.example:80")
    eventually(lambda: set(world.states("site").values()) == {"up"})
    assert sorted(curl(host, "web", "http://site/") for _ in range(4)) == [ONE] * 2 + [OTHER] * 2
    one.terminate()
    one.wait()
    assert {curl(host, "web", "http://site/") for _ in range(4)} == {OTHER}, "no client notices"
    eventually(lambda: world.states("site") == {f"{ONE}:80": "down", "both.example:80": "up"})
    (down,) = [row for row in host.rows("external", "list") if row["state"] == "down"]
    assert down["health"] == [{"gateway": "gw", "state": "down", "reason": "Connection refused"}]
    assert "gw:down" in host.command("external", "list").stdout
    world.nginx(ONE)
    eventually(lambda: set(world.states("site").values()) == {"up"})
    eventually(lambda: ONE in [curl(host, "web", "http://site/") for _ in range(2)])


def test_policy_is_as_for_apps(world: World) -> None:
    """By its name and tags; the default for the outside isn't asked."""
    world.nginx(ONE)
    host = world.host
    host.command("external", "add", "site", "--tag", "grp=1", f"80:{ONE}:80")
    assert curl(host, "web", "http://site/") == REFUSED
    done = host.run("--tag", "grp=1", "curl", "-sS", "http://site/")
    assert done.stdout == f"{ONE}\n"
    (denied,) = host.events("--kind", "deny")
    assert (denied["rule"], denied["server_name"]) == ("grp", "site")


def test_a_name_that_leads_inside(world: World) -> None:
    """Whoever has loopback.example would like to reach what listens on the gateway itself."""
    inside: Namespace = world.host.namespace
    (world.directory / "nginx.conf").write_text(NGINX.format(dir=world.directory))
    inside.start("nginx", "-c", f"{world.directory}/nginx.conf", log=world.directory / "inside.log")
    host = world.host
    host.command("external", "add", "site", "80:loopback.example:80")
    eventually(lambda: world.states("site") == {"loopback.example:80": "down"})
    assert curl(host, "web", "http://site/") == REFUSED
    (row,) = host.rows("external", "list")
    assert "no address outside" in row["health"][0]["reason"]


def test_what_can_not_be(world: World) -> None:
    for words, status, says in (
        ("add db 5432:127.0.0.1:5432", 2, "127.0.0.1 can't be a server outside"),
        ("add db 53:192.0.2.1:53/udp", 2, "TCP only"),
        ("add db 5432", 2, "'5432' is no backend"),
        ("add db", 2, "Missing argument"),
        ("add d_b- 1:a:1", 2, "can't be an app's name"),
        ("rm db", 1, "no external server db is registered on this node"),
    ):
        done = world.host.command("external", *words.split(), check=False)
        assert done.returncode == status, words
        assert says in done.stderr, words


def test_no_app_registers_one(world: World) -> None:
    done = world.host.run(*world.host.appswitch, "external", "add", "db", "1:a:1", check=False)
    assert done.returncode == 1
    assert "can't be done from inside" in done.stderr
    host: Host = world.host
    assert host.rows("external", "list") == []
