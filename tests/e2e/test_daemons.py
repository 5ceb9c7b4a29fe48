"""Daemons of the old school: they fork, chroot, drop privileges, inherit sockets and hand them on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually

PYTHON = sys.executable


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def pid_in(path: Path) -> int:
    """The process id that a daemon has written there; 0: not yet."""
    return int(path.read_text().strip() or 0) if path.exists() else 0


HAPROXY = """
global
  chroot {dir}/jail
  user nobody
  group nogroup
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend front
  bind *:80
  default_backend back
backend back
  server one 10.9.8.1:8000
"""


@pytest.mark.root
@pytest.mark.program("haproxy", "curl")
def test_haproxy_in_its_jail(switch: Switch) -> None:
    """It goes there, becomes nobody and forbids itself processes before it accepts and connects at all."""
    (switch.directory / "jail").mkdir()
    write(switch.directory / "page", "a page")
    switch.spawn("--ip", "10.9.8.1", "--name", "back", PYTHON, "-m", "http.server", "8000", cwd=switch.directory)
    switch.wait_for("back:8000")
    config = write(switch.directory / "haproxy.cfg", HAPROXY.format(dir=switch.directory))
    switch.spawn("--ip", "10.9.8.2", "--name", "front", "haproxy", "-Ws", "-f", config)
    switch.wait_for("front:80")
    for _ in range(5):
        assert switch.run("curl", "-sS", "http://front/page").stdout == "a page"


VSFTPD = """
listen=YES
background=NO
anonymous_enable=YES
anon_root={dir}/files
secure_chroot_dir={dir}/jail
connect_from_port_20=YES
seccomp_sandbox=NO
"""


@pytest.mark.root
@pytest.mark.program("vsftpd", "curl")
@pytest.mark.parametrize("way", [[], ["--ftp-port", "-"]], ids=["passive", "active"])
def test_vsftpd(switch: Switch, way: list[str]) -> None:
    """Chrooted sessions bind (passive) and connect from port 20 (active)."""
    for name in ("files", "jail"):
        (switch.directory / name).mkdir()
    write(switch.directory / "files" / "file", "content")
    config = write(switch.directory / "vsftpd.conf", VSFTPD.format(dir=switch.directory))
    switch.spawn("--name", "ftp", "vsftpd", config)
    switch.wait_for("ftp:21")
    assert switch.run("--ip", "10.9.8.3", "curl", "-sS", *way, "ftp://ftp/file").stdout == "content"


@pytest.mark.root
@pytest.mark.program("inetd")
def test_inetd(switch: Switch) -> None:
    """The connection is the program's standard input and output."""
    config = write(switch.directory / "inetd.conf", "9999 stream tcp nowait root /bin/cat cat\n")
    switch.spawn("--name", "inetd", "inetd", "-i", config)
    switch.wait_for("inetd:9999")
    client = "import socket; s = socket.create_connection(('inetd', 9999)); s.sendall(b'there\\n'); print(s.recv(9))"
    assert switch.run(PYTHON, "-c", client).stdout == "b'there\\n'\n"


WSGI = """
import os
def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{os.getpid()} to {environ['REMOTE_ADDR']}".encode()]
"""

LOAD = """
import select, socket, sys
print("started", flush=True)
done = failed = 0
while done < 100 or not select.select([sys.stdin], [], [], 0)[0]:
    try:
        client = socket.create_connection((sys.argv[1], 80), timeout=20)
        client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        failed += b" 200 " not in b"".join(iter(lambda: client.recv(4096), b""))
        client.close()
    except OSError:
        failed += 1
    done += 1
print(failed)
"""


class Load:
    """One request after the other, each over a connection of its own."""

    def __init__(self, switch: Switch, server: str) -> None:
        self._client = switch.spawn(PYTHON, "-c", LOAD, server, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._client.stdout is not None
        assert self._client.stdout.readline() == "started\n"

    def end(self) -> int:
        """How many of the requests failed."""
        return int(self._client.communicate("\n", timeout=PATIENCE)[0])


@pytest.mark.root
@pytest.mark.program("gunicorn", "curl")
def test_gunicorn_reloads(switch: Switch) -> None:
    """The master binds, its workers accept; SIGHUP puts new ones in their place."""
    write(switch.directory / "wsgi.py", WSGI)
    pid_file = switch.directory / "pid"
    command = ("gunicorn", "-w", "3", "-b", "0.0.0.0:80", "-p", str(pid_file), "wsgi:app")
    switch.spawn("--name", "web", *command, cwd=switch.directory)
    switch.wait_for("web:80")
    ask = ("--ip", "10.9.8.4", "curl", "-sS", "http://web/")
    before = switch.run(*ask).stdout.split()
    assert before[1:] == ["to", "10.9.8.4"]
    load = Load(switch, "web")
    os.kill(pid_in(pid_file), signal.SIGHUP)
    eventually(lambda: not Path("/proc", before[0]).exists())
    assert switch.run(*ask).stdout.split()[0] != before[0]
    assert load.end() == 0


NGINX = """
user root; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{ listen 80; location / {{ return 200 "here\\n"; }} }}
}}
"""


@pytest.mark.root
@pytest.mark.program("nginx", "curl")
def test_nginx_becomes_a_new_binary_under_load(switch: Switch) -> None:
    """The listeners go to the new process by exec, as numbers in its environment; no connection is lost."""
    config = write(switch.directory / "nginx.conf", NGINX.format(dir=switch.directory))
    pid_file, old_file = switch.directory / "nginx.pid", switch.directory / "nginx.pid.oldbin"
    switch.run("--name", "web", shutil.which("nginx") or "", "-c", config)  # it takes itself to the background
    eventually(lambda: pid_in(pid_file))
    old = pid_in(pid_file)
    try:
        load = Load(switch, "web")
        os.kill(old, signal.SIGUSR2)
        eventually(lambda: pid_in(old_file) == old and pid_in(pid_file) not in (0, old))
        os.kill(old, signal.SIGWINCH)
        os.kill(old, signal.SIGQUIT)
        eventually(lambda: not old_file.exists())
        assert load.end() == 0
        assert switch.run("curl", "-sS", "http://web/").stdout == "here\n"
    finally:
        os.kill(pid_in(pid_file), signal.SIGTERM)


@pytest.mark.root
@pytest.mark.program("nginx", "curl")
def test_an_nginx_worker_crashes(switch: Switch) -> None:
    """The master starts another one, which goes on with the same listener."""
    config = write(
        switch.directory / "nginx.conf", NGINX.format(dir=switch.directory).replace("user", "daemon off; user")
    )
    switch.spawn("--name", "web", "nginx", "-c", config)
    switch.wait_for("web:80")
    master = switch.directory / "nginx.pid"
    eventually(lambda: pid_in(master))
    children = Path(f"/proc/{pid_in(master)}/task/{pid_in(master)}/children")
    eventually(lambda: len(children.read_text().split()) == 2)
    for _ in range(3):
        workers = children.read_text().split()
        for worker in workers:
            os.kill(int(worker), signal.SIGSEGV)
        eventually(lambda gone=set(workers): len(set(children.read_text().split()) - gone) == 2)
        assert switch.run("curl", "-sS", "http://web/").stdout == "here\n"
