"""Figure 1 of the paper: two Web, two App and a DB share a virtual IP; the groups say who reaches whom."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.harness import Switch, eventually, running_switch

PYTHON = sys.executable
VIP = "10.9.9.1"

# Web: passes on what comes under /app/HOW/ to App, and under /db/HOW/ to the DB; HOW: by which address.
NGINX = """
daemon off; user root; worker_processes 1; pid {dir}/{n}.pid; error_log {dir}/{n}-error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {dir}/b{n}; proxy_temp_path {dir}/p{n}; fastcgi_temp_path {dir}/f{n};
  uwsgi_temp_path {dir}/u{n}; scgi_temp_path {dir}/s{n};
  server {{
    listen 80;
    {locations}
  }}
}}
"""

# App: counts in the DB, at the address that the path names.
APP = """
import http.server, os, socket

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection((self.path.strip("/"), 6379)) as db:
            db.sendall(b"INCR hits\\r\\n")
            hits = db.recv(99).decode().strip()
        body = f"app {os.getpid()} db {hits}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""


def nginx_config(switch: Switch, number: int) -> str:
    locations = "".join(
        f"location /{name}/{way}/ {{ proxy_pass http://{name if way == 'name' else way}:{port}/; }}\n"
        for name, port in (("app", 8000), ("db", 6379))
        for way in ("127.0.0.1", VIP, "name")
    )
    file = switch.directory / f"nginx-{number}.conf"
    file.write_text(NGINX.format(dir=switch.directory, n=number, locations=locations))
    return str(file)


@pytest.fixture(scope="module")
def figure() -> Iterator[Switch]:
    with running_switch() as switch:
        shared = ["--ip", VIP, "--name"]
        both = ["--tag", "grp=1", "--tag", "grp=2"]
        switch.spawn(*shared, "db", "--tag", "grp=2", "redis-server", "--save", "", "--protected-mode", "no")
        switch.wait_for("db:6379")
        for _ in range(2):
            switch.spawn(*shared, "app", *both, PYTHON, "-c", APP)
        switch.wait_for("app:8000")
        for number in range(2):
            switch.spawn(*shared, "web", "--tag", "grp=1", "nginx", "-c", nginx_config(switch, number))
        eventually(lambda: sorted(each["port"] for each in switch.rows("services")) == [80, 80, 6379, 8000, 8000])
        yield switch


pytestmark = [pytest.mark.root, pytest.mark.program("nginx", "redis-server", "redis-cli", "curl")]


@pytest.mark.parametrize("to_app", ["127.0.0.1", VIP, "name"])
@pytest.mark.parametrize("to_db", ["127.0.0.1", VIP, "db"])
def test_web_reaches_app_and_app_the_db(figure: Switch, to_app: str, to_db: str) -> None:
    answers = figure.run(
        "--ip", "10.9.9.9", "--tag", "grp=1", "curl", "-sf", *[f"http://web/app/{to_app}/{to_db}"] * 8
    ).stdout
    seen = re.findall(r"app (\d+) db :(\d+)", answers)
    assert len(seen) == 8
    assert len({app for app, _ in seen}) == 2, "both instances have their turn"
    counts = [int(hits) for _, hits in seen]
    assert counts == list(range(counts[0], counts[0] + 8)), "one database counts them all"


@pytest.mark.parametrize("to_db", ["127.0.0.1", VIP, "name"])
def test_web_does_not_reach_the_db(figure: Switch, to_db: str) -> None:
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} ", f"http://web/db/{to_db}/"]
    assert figure.run("--ip", "10.9.9.9", "--tag", "grp=1", *command).stdout == "502 "


@pytest.mark.parametrize("host", ["127.0.0.1", VIP, "db"])
@pytest.mark.parametrize(
    ("groups", "reaches"), [((), False), (("1",), False), (("2",), True), (("1", "2"), True), (("3",), False)]
)
def test_the_groups_decide_and_not_the_virtual_ip(
    figure: Switch, host: str, groups: tuple[str, ...], reaches: bool
) -> None:
    tags = [word for group in groups for word in ("--tag", f"grp={group}")]
    done = figure.run("--ip", VIP, *tags, "redis-cli", "-h", host, "ping", check=False)
    assert ("PONG" in done.stdout) == reaches, done
    assert ("Connection refused" in done.stderr + done.stdout) != reaches


def test_why_says_it(figure: Switch) -> None:
    def why(client: str, dest: str) -> subprocess.CompletedProcess[str]:
        return figure.command("why", client, dest, check=False)

    assert (why("web", "app:8000").returncode, why("app", "db:6379").returncode) == (0, 0)
    denied = why("web", "db:6379")
    assert denied.returncode == 1
    assert "the grp rule denies it: the client has grp=1, the server grp=2" in denied.stdout
    assert why("web", "localhost:6379").returncode == 1


def test_what_was_denied_is_an_event(figure: Switch) -> None:
    figure.run("--ip", VIP, "--name", "web", "--tag", "grp=1", "redis-cli", "-h", "db", "ping", check=False)
    events = figure.command("observe", "--json", "--kind", "deny", "--app", "web").stdout
    last = json.loads(events.splitlines()[-1])
    assert (last["name"], last["server_name"], last["rule"]) == ("web", "db", "grp")
