"""Go programs make their system calls without libc: the tracer traps them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually

pytestmark = pytest.mark.program("go")

SOURCE = Path(__file__).parent / "programs" / "web.go"
IP = "10.50.0.2"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go program, without cgo: static."""
    directory = tmp_path_factory.mktemp("go")
    cache = {"GOCACHE": str(directory / "cache"), "GOPATH": str(directory / "path"), "GO111MODULE": "off"}
    command = ["go", "build", "-o", str(directory / "web"), str(SOURCE)]
    environment = {**os.environ, **cache, "CGO_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE * 3)
    assert done.returncode == 0, done.stderr
    return str(directory / "web")


@pytest.fixture
def server(switch: Switch, web: str) -> None:
    """The app `web` serves port 80."""
    switch.spawn("--name", "web", web, "serve", ":80")
    switch.wait_for("web:80")


@pytest.mark.parametrize("keep", ["keep", "close"])
@pytest.mark.usefixtures("server")
def test_http_by_name(switch: Switch, web: str, keep: str) -> None:
    assert switch.run("--ip", IP, web, "get", "http://web/", "5", keep).stdout == f"hello {IP}\n" * 5


@pytest.mark.program("curl")
@pytest.mark.usefixtures("server")
def test_a_dynamic_client(switch: Switch) -> None:
    assert switch.run("--ip", IP, "curl", "-s", "http://web/").stdout == f"hello {IP}\n"


@pytest.mark.usefixtures("server")
def test_many_clients_at_once(switch: Switch, web: str) -> None:
    done = switch.run("--ip", IP, web, "many", "http://web/", "50", "20")
    assert done.stdout == f"hello {IP}\n" * 1000


@pytest.mark.usefixtures("server")
def test_go_s_resolver(switch: Switch, web: str) -> None:
    (row,) = switch.rows("services")
    assert switch.run("--ip", IP, web, "lookup", "web").stdout == f"[{row['ip']}]\n"


@pytest.mark.program("redis-server")
def test_a_client_of_redis(switch: Switch, web: str) -> None:
    switch.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no", "--port", "6379")
    switch.wait_for("redis:6379")
    said = switch.run("--ip", IP, web, "dial", "tcp", "redis:6379").stdout
    assert re.fullmatch(rf"{IP}:\d+ to [\d.]+:6379\n\+PONG\n\n", said), said


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
