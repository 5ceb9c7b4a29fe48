"""The outside: through a gateway, or not at all. The outside here is an address of a namespace that the test makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.zygote import MODULE

SCRIPT = """
set -eu
ip link set lo up; ip addr add 192.0.2.7/32 dev lo; ip addr add 2001:db8::7/128 dev lo nodad
export APPSWITCH_SOCKET=$PWD/trap.sock
{appswitch} serve {flags} --ready-fd 9 9>ready 2>serve.log & server=$!
{python} -m http.server 8000 --bind :: --directory $PWD >web.log 2>&1 & web=$!
trap 'kill $server $web' EXIT
until [ -s ready ] && grep -q Serving web.log; do :; done
{appswitch} spawn {python} client.py
"""
CLIENT = """
import errno, select, socket
def outcome(host, port, blocking):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.setblocking(blocking)
    error = s.connect_ex((host, port))
    if error == errno.EINPROGRESS:
        select.select([], [s], [], 20)
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        return errno.errorcode[error]
    s.setblocking(True)
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    kept = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return s.recv(15).decode(), s.getpeername()[:2] == (host, port), kept
for host in "192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7":
    print(host, *(outcome(host, port, blocking) for port in (8000, 8001) for blocking in (True, False)))
"""


LISTED = f"""
import socket, subprocess
kept = socket.create_connection(("192.0.2.7", 8000))
print(kept.getsockname()[1])
subprocess.run([*{MODULE}, "connections", "--json"], check=True)
kept.close()
subprocess.run([*{MODULE}, "connections", "--json"], check=True)
"""


def run(directory: Path, flags: str, client: str = CLIENT) -> list[str]:
    (directory / "client.py").write_text(client)
    script = SCRIPT.format(appswitch=" ".join(MODULE), python=sys.executable, flags=flags)
    command = ["unshare", "-n", "sh", "-c", script]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{(directory / 'serve.log').read_text()}"
    return done.stdout.splitlines()


@pytest.mark.root
@pytest.mark.program("unshare", "ip")
def test_through_a_gateway(tmp_path: Path) -> None:
    good = "('HTTP/1.0 200 OK', True, 1)"
    for line in run(tmp_path, "--gateway"):
        assert line.endswith(f" {good} {good} ECONNREFUSED ECONNREFUSED"), line


@pytest.mark.root
@pytest.mark.program("unshare", "ip")
def test_connections_lists_them(tmp_path: Path) -> None:
    port, *said = run(tmp_path, "--gateway", LISTED)
    rows, at = json.JSONDecoder().raw_decode("\n".join(said))
    (row,) = rows
    assert (row["client_app"], row["client_ip"], row["client_port"]) == (1, "192.0.2.7", int(port))
    assert (row["dest_ip"], row["dest_port"], row["server_app"], row["medium"]) == ("192.0.2.7", 8000, None, "tcp")
    assert json.loads("\n".join(said)[at:]) == []


@pytest.mark.root
@pytest.mark.program("unshare", "ip")
def test_without_one(tmp_path: Path) -> None:
    lines = run(tmp_path, "")
    assert [line.split()[1:] for line in lines] == [["ENETUNREACH"] * 4] * 3
