"""Go programs make their system calls without libc: they are trapped, either way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually

pytestmark = [pytest.mark.program("go"), pytest.mark.usefixtures("way")]

SOURCE = Path(__file__).parent / "programs" / "web.go"
IP = "10.50.0.2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for `go`, with a cache of its own."""
    directory = tmp_path_factory.mktemp("go")
    return {"GOCACHE": str(directory / "cache"), "GOPATH": str(directory / "path"), "GO111MODULE": "off"}


@pytest.fixture(
    scope="module", params=["0", pytest.param("1", marks=pytest.mark.program("gcc"))], ids=["static", "cgo"]
)
def web(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, home: dict[str, str]) -> str:
    """The Go program: static, or with libc, of which it uses the resolver and nothing else."""
    program = str(tmp_path_factory.mktemp("web") / "web")
    environment = {**os.environ, **home, "CGO_ENABLED": request.param}
    command = ["go", "build", "-o", program, str(SOURCE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE * 3)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture
def server(switch: Switch, web: str, way: str) -> None:
    """The app `web` serves port 80."""
    switch.spawn("--name", "web", web, "serve", ":80")
    switch.wait_for("web:80")


@pytest.mark.parametrize("keep", ["keep", "close"])
@pytest.mark.usefixtures("server")
def test_http_by_name(switch: Switch, web: str, keep: str) -> None:
    assert switch.run("--ip", IP, web, "get", "http://web/", "5", keep).stdout == f"hello {IP}\n" * 5


@pytest.mark.parametrize("flags", [["--no-netns"], ["--tcp"]], ids=str)
def test_without_a_namespace_and_by_tcp(switch: Switch, web: str, flags: list[str]) -> None:
    switch.spawn(*flags, "--name", "web", web, "serve", ":18080")
    switch.spawn(*flags, "--name", "echo", web, "udp", ":15000")
    switch.wait_for("web:18080", "echo:15000")
    done = switch.run(*flags, "--name", "client", "--ip", IP, web, "many", "http://web:18080/", "10", "5")
    assert done.stdout == f"hello {IP}\n" * 50
    assert (
        f" from {IP}\n" in switch.run(*flags, "--name", "client", "--ip", IP, web, "dial", "udp", "echo:15000").stdout
    )


@pytest.mark.program("curl")
@pytest.mark.usefixtures("server")
def test_a_dynamic_client(switch: Switch) -> None:
    assert switch.run("--ip", IP, "curl", "-s", "http://web/").stdout == f"hello {IP}\n"


@pytest.mark.usefixtures("server")
def test_many_clients_at_once(switch: Switch, web: str) -> None:
    done = switch.run("--ip", IP, web, "many", "http://web/", "50", "20")
    assert done.stdout == f"hello {IP}\n" * 1000


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("resolver", ["go", "cgo"])
def test_go_s_resolver(switch: Switch, web: str, resolver: str) -> None:
    """(A program without cgo takes its own all the same.)"""
    (row,) = switch.rows("services")
    done = switch.run("--ip", IP, "env", f"GODEBUG=netdns={resolver}", web, "lookup", "web")
    assert done.stdout == f"[{row['ip']}]\n"
    done = switch.run("env", f"GODEBUG=netdns={resolver}", web, "lookup", "nothing.appswitch.local", check=False)
    assert "no such host" in done.stderr


@pytest.mark.program("redis-server")
def test_a_client_of_redis(switch: Switch, web: str) -> None:
    switch.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no", "--port", "6379")
    switch.wait_for("redis:6379")
    said = switch.run("--ip", IP, web, "dial", "tcp", "redis:6379").stdout
    assert re.fullmatch(rf"{IP}:\d+ to [\d.]+:6379\n\+PONG\n\n", said), said


@pytest.mark.program("redis-cli", "redis-benchmark")
def test_a_server_for_redis_clients(switch: Switch, web: str) -> None:
    switch.spawn("--name", "redis", web, "redis", ":6379")
    switch.wait_for("redis:6379")
    assert switch.run("redis-cli", "-h", "redis", "echo", "hello").stdout == "hello\n"
    load = ["redis-benchmark", "-h", "redis", "-c", "50", "-n", "2000", "-t", "ping_mbulk"]
    for flags in (["-k", "0"], ["-P", "16"]):
        assert "2000 requests completed" in switch.run(*load, *flags, timeout=90).stdout


def test_udp(switch: Switch, web: str) -> None:
    switch.spawn("--name", "echo", web, "udp", ":5000")
    eventually(lambda: [row["port"] for row in switch.rows("services")] == [5000])
    said = switch.run("--ip", IP, web, "dial", "udp", "echo:5000").stdout
    assert re.fullmatch(rf"{IP}:\d+ to [\d.]+:5000\nPING\n from {IP}\n", said), said


@pytest.mark.program("curl")
@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("shell", [["sh", "-c"], ["python3", "-c", "import os, sys; os.system(sys.argv[1])"]])
def test_started_by_a_dynamic_program_and_starting_one(switch: Switch, web: str, shell: list[str]) -> None:
    command = f"{web} get http://web/ 1 close; exec {web} run curl -s http://web/"
    assert switch.run("--ip", IP, *shell, command).stdout == f"hello {IP}\n" * 2


@pytest.mark.program("make", "prove")
@pytest.mark.usefixtures("server")
def test_make_and_test_runners(switch: Switch, web: str, tmp_path: Path) -> None:
    """make, two at a time, runs perl's prove and Python's unittest; each runs the tool in its own way."""
    get = f"{web} get http://web/ 1 close"
    (tmp_path / "Makefile").write_text(
        f"all: alone perl python\nalone:\n\t@{get}\nperl:\n\t@prove -q one.t\n"
        f"python:\n\t@{sys.executable} -m unittest -q test_one.py\n"
    )
    (tmp_path / "one.t").write_text(f'print "1..1\\n", `{get}` eq "hello {IP}\\n" ? "ok 1\\n" : "not ok 1\\n";')
    (tmp_path / "test_one.py").write_text(
        "import subprocess, unittest\nclass One(unittest.TestCase):\n    def test_one(self):\n"
        f"        self.assertEqual(subprocess.check_output({get.split()}), b'hello {IP}\\n')\n"
    )
    done = switch.run("--ip", IP, "make", "-j2", "-C", str(tmp_path), "--no-print-directory")
    assert f"hello {IP}\n" in done.stdout
    assert "Result: PASS" in done.stdout
    assert "OK" in done.stderr


TEST = """
package main

import ("io"; "net/http"; "testing")

func TestGet(t *testing.T) {
	response, err := http.Get("http://web/")
	if err != nil { t.Fatal(err) }
	body, err := io.ReadAll(response.Body)
	if string(body) != "hello %s\\n" { t.Fatal(string(body), err) }
}
"""


@pytest.mark.usefixtures("server")
def test_go_test(switch: Switch, home: dict[str, str], tmp_path: Path) -> None:
    """Go's compiler and linker are traced, too; what it builds it runs."""
    (tmp_path / "get_test.go").write_text(TEST % IP)
    environment = {**switch.environment, **home, "CGO_ENABLED": "0"}
    done = switch.run("--ip", IP, "go", "test", cwd=tmp_path, env=environment, timeout=PATIENCE * 3)
    assert "PASS" in done.stdout, done


@pytest.mark.program("serf")
def test_a_cluster_of_serf(switch: Switch) -> None:
    """Two members gossip by UDP and TCP, and a third program asks each at its loopback."""

    def serf(member: str, *words: str) -> str:
        return switch.run("--ip", members[member], "serf", *words, check=False).stdout

    members = {"a": "10.50.2.1", "b": "10.50.2.2"}
    for name, ip in members.items():
        agent = ["serf", "agent", f"-node={name}", f"-bind={ip}", "-profile=local"]
        switch.spawn("--name", name, "--ip", ip, *agent)
        switch.wait_for(f"{name}:7946", f"{name}:7373")
    assert "contacting 1 nodes" in serf("b", "join", "a")
    for name, other in ("ab", "ba"):
        eventually(lambda name=name: serf(name, "members").count("alive") == 2)
        told = f"Estimated {other} <-> {name} rtt"  # once it has been probed
        eventually(lambda name=name, other=other, told=told: told in serf(name, "rtt", other))
    assert "all live nodes" in serf("a", "reachability")


@pytest.mark.program("caddy", "curl")
def test_caddy_serves_and_passes_on(switch: Switch, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("caddy's\n")
    home = ["env", f"HOME={tmp_path}"]
    switch.spawn("--name", "files", *home, "caddy", "file-server", "--listen", ":80", "--root", str(tmp_path))
    switch.wait_for("files:80")
    proxy = [*home, "caddy", "reverse-proxy", "--from", ":80", "--to", "files:80"]
    switch.spawn("--name", "proxy", *proxy)
    switch.wait_for("proxy:80")
    done = switch.run("curl", "-s", "-H", "Host: files", "http://proxy/page", "http://files/page")
    assert done.stdout == "caddy's\n" * 2
