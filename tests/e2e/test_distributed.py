"""Distributed applications: apps that share a virtual IP share its ports and its loopback addresses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.test_real_programs import nginx_config, postgres_programs, write
from tests.harness import Switch, eventually

PYTHON = sys.executable

SAYS = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{sys.argv[1]} to {self.client_address[0]}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = 10 if ":" in sys.argv[2] else 2
    def server_bind(self): self.socket.bind(self.server_address)
Server((sys.argv[2], int(sys.argv[3])), Handler).serve_forever()
"""


def says(switch: Switch, ip: str, name: str, text: str, bound: str, port: int) -> subprocess.Popen[str]:
    """An HTTP server of an app that answers `text`."""
    return switch.spawn("--ip", ip, "--name", name, PYTHON, "-c", SAYS, text, bound, str(port))


def get(switch: Switch, ip: str, url: str) -> str:
    """What curl prints in an app of its own, or how it fails."""
    done = switch.run("--ip", ip, "curl", "-sS", "--max-time", "20", url, check=False)
    return done.stdout or done.stderr


@pytest.mark.root
@pytest.mark.program("nginx", "curl")
def test_nginx_proxies_to_loopback(switch: Switch) -> None:
    """Its configuration is that of a machine that runs both; the backend is another app of the virtual IP."""
    more = """
      server { listen 81; location / { proxy_pass http://127.0.0.1:8000; } }
      server { listen 82; location / { proxy_pass http://[::1]:8001; } }
      server { listen 83; location / { proxy_pass http://localhost:8000; } }
    """
    says(switch, "10.9.9.1", "back4", "v4", "127.0.0.1", 8000)
    says(switch, "10.9.9.1", "back6", "v6", "::1", 8001)
    switch.spawn("--ip", "10.9.9.1", "--name", "front", "nginx", "-c", nginx_config(switch, more))
    switch.wait_for("back4:8000", "back6:8001", "front:83")
    for port, answer in ((81, "v4 to 127.0.0.1\n"), (82, "v6 to ::1\n"), (83, "v4 to 127.0.0.1\n")):
        for _ in range(4):  # the later ones by capability
            assert get(switch, "10.9.9.2", f"http://front:{port}/") == answer


@pytest.mark.program("curl")
def test_loopback_listeners_stay_inside(switch: Switch) -> None:
    says(switch, "10.9.9.1", "four", "v4", "127.0.0.1", 8000)
    says(switch, "10.9.9.1", "six", "v6", "::1", 8001)
    switch.wait_for("four:8000", "six:8001")
    assert get(switch, "10.9.9.1", "http://127.0.0.1:8000/") == "v4 to 127.0.0.1\n"
    assert get(switch, "10.9.9.1", "http://[::1]:8001/") == "v6 to ::1\n"
    for port in (8000, 8001):
        assert "Connection refused" in refused(switch, "10.9.9.2", f"http://10.9.9.1:{port}/")
        for url in (f"http://127.0.0.1:{port}/", f"http://[::1]:{port}/"):
            assert "Connection refused" in refused(switch, "10.9.9.2", url)
    # Inside, too, loopback is another address than the virtual IP, and IPv4's another than IPv6's.
    for url in ("http://10.9.9.1:8000/", "http://[::1]:8000/", "http://127.0.0.1:8001/"):
        assert "Connection refused" in refused(switch, "10.9.9.1", url)


def refused(switch: Switch, ip: str, url: str) -> str:
    code = "import sys, urllib.request as u\ntry: u.urlopen(sys.argv[1], timeout=20)\nexcept OSError as e: print(e)"
    return switch.run("--ip", ip, PYTHON, "-c", code, url).stdout


@pytest.mark.program("curl")
def test_an_apps_own_listener_comes_first(switch: Switch) -> None:
    says(switch, "10.9.9.1", "one", "one", "127.0.0.1", 8000)
    says(switch, "10.9.9.1", "two", "two", "0.0.0.0", 8000)
    switch.wait_for("one:8000")
    eventually(lambda: len(switch.rows("services")) == 2)
    script = f"""{PYTHON} -c "$1" own "$2" 8000 & until curl -sS "$3" 2>/dev/null | grep own; do :; done
        for i in 1 2 3 4 5; do curl -sS "$3"; done; kill $!"""
    for bound, url in (("127.0.0.1", "http://127.0.0.1:8000/"), ("0.0.0.0", "http://127.0.0.1:8000/")):
        done = switch.run("--ip", "10.9.9.1", "sh", "-c", script, "sh", SAYS, bound, url)
        assert done.stdout == "own to 127.0.0.1\n" * 6
    seen = {get(switch, "10.9.9.1", "http://127.0.0.1:8000/") for _ in range(8)}
    assert seen == {"one to 127.0.0.1\n", "two to 127.0.0.1\n"}, "who has none reaches its siblings', in turn"
    assert {get(switch, "10.9.9.2", "http://10.9.9.1:8000/") for _ in range(4)} == {"two to 10.9.9.2\n"}


WEB_APP = """
import http.server, subprocess
def ask(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hits = ask("redis-cli", "incr", "hits")
        total = ask("psql", "-h", "localhost", "-U", "nobody", "-d", "postgres", "-Atc",
                    "select host(inet_client_addr()) || ' ' || (select sum(n) from numbers)")
        text = f"hits {hits}, sum {total}\\n".encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


@pytest.mark.root
@pytest.mark.program("psql", "redis-server", "redis-cli", "curl")
def test_a_web_app_finds_its_postgres_and_redis_on_localhost(switch: Switch) -> None:
    """Each is an app of its own, with the configuration that it comes with: they listen on localhost only."""
    site, programs = "10.9.9.1", postgres_programs()
    data = switch.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    switch.run("--user", "nobody", str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "nobody")
    postgres = [str(programs / "postgres"), "-D", str(data), "-k", str(data)]
    switch.spawn("--ip", site, "--name", "db", "--user", "nobody", *postgres)
    redis = [
        "redis-server",
        "--bind",
        "127.0.0.1",
        "-::1",
        "--save",
        "",
        "--dir",
        str(switch.directory),
    ]  # Debian's bind
    switch.spawn("--ip", site, "--name", "cache", *redis)
    psql = ["psql", "-h", "localhost", "-U", "nobody", "-d", "postgres", "-Atc"]
    create = "create table numbers (n int); insert into numbers values (40), (2)"
    waited = ("--ip", site, "--wait-for", "db:5432", "--wait-for", "cache:6379")
    eventually(lambda: switch.run(*waited, *psql, "select 1", check=False).stdout == "1\n")
    switch.run("--ip", site, *psql, create)
    app = write(switch.directory / "app.py", WEB_APP)
    switch.spawn(*waited, "--name", "web", PYTHON, app)
    switch.wait_for("web:8000")
    answers = [get(switch, "10.9.9.2", "http://web:8000/") for _ in range(3)]
    assert answers[0].startswith("hits 1, sum ")
    assert {answer.partition("sum ")[2] for answer in answers} <= {"127.0.0.1 42\n", "::1 42\n"}
    # Nobody else reaches them.
    for outsider in ("10.9.9.2", "fd00::2"):
        cache = switch.run("--ip", outsider, "redis-cli", "-h", site, "ping", check=False)
        assert "Connection refused" in cache.stderr + cache.stdout
        database = switch.run("--ip", outsider, "psql", "-h", site, "-U", "nobody", "-c", "select 1", check=False)
        assert "Connection refused" in database.stderr
