"""Real programs that bring their own system calls: Debian's static busybox, rclone (Go), a static musl server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path
from appswitch.host.tracer import VARIABLE
from tests.e2e.test_musl import TALK
from tests.harness import PATIENCE, Switch, running_switch
from tests.hosts import network

pytestmark = pytest.mark.usefixtures("way")
IP = "10.50.1.2"


@pytest.fixture
def files(switch: Switch, tmp_path: Path, way: str) -> None:
    """Busybox serves `page`, and a script that tells who asks, at http://files."""
    (tmp_path / "page").write_text("a page\n" * 10_000)
    script = tmp_path / "cgi-bin" / "who"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "Content-type: text/plain"\necho\necho "$REMOTE_ADDR"\n')
    script.chmod(0o755)
    switch.spawn("--name", "files", "busybox", "httpd", "-f", "-p", "80", "-h", str(tmp_path))
    switch.wait_for("files:80")


@pytest.mark.program("busybox-static", "curl")
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("client", [["busybox", "wget", "-q", "-O", "-"], ["curl", "-sS"]], ids=["wget", "curl"])
def test_busybox_httpd(switch: Switch, client: list[str]) -> None:
    assert switch.run("--ip", IP, *client, "http://files/page").stdout == "a page\n" * 10_000
    assert switch.run("--ip", IP, *client, "http://files/cgi-bin/who").stdout == f"[::ffff:{IP}]\n"


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("files")
def test_busybox_runs_itself_many_times(switch: Switch) -> None:
    """A shell whose commands are itself again."""
    script = "for i in 1 2 3 4 5 6 7 8; do busybox wget -q -O - http://files/page | busybox wc -l & done; wait"
    assert switch.run("busybox", "sh", "-c", script).stdout.split() == ["10000"] * 8


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("interpreter", ["/bin/busybox", "/usr/bin/env -S busybox"])
@pytest.mark.parametrize("starter", [[], ["sh", "-c", 'exec "$0"']], ids=["spawn", "shell"])
def test_a_script_for_busybox(switch: Switch, tmp_path: Path, interpreter: str, starter: list[str]) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!{interpreter} sh\nexec wget -q -O - http://files/page\n")
    script.chmod(0o755)
    assert switch.run(*starter, str(script)).stdout == "a page\n" * 10_000


@pytest.mark.root
@pytest.mark.program("busybox-static", "curl")
def test_a_daemon_that_becomes_another_user(way: str) -> None:
    """It forks, its parent ends, and with that spawn; it serves on, and its children are traced."""
    with running_switch() as other:  # its directory is one that everybody may enter
        other.environment[VARIABLE] = way
        script = other.directory / "cgi-bin" / "who"
        script.parent.mkdir()
        script.write_text('#!/bin/sh\necho "Content-type: text/plain"\necho\nid -un\nbusybox id -un\n')
        script.chmod(0o755)
        httpd = ["busybox", "httpd", "-u", "nobody", "-p", "80", "-h", str(other.directory)]
        daemon = other.spawn("--name", "files", *httpd)
        other.wait_for("files:80")
        assert daemon.wait(PATIENCE) == 0
        assert other.run("curl", "-s", "http://files/cgi-bin/who").stdout == "nobody\nnobody\n"


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("files")
def test_busybox_wget_of_a_stranger(switch: Switch) -> None:
    done = switch.run("busybox", "wget", "-O", "-", "http://files:81/", check=False)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


@pytest.fixture
def echo(switch: Switch, way: str) -> None:
    """Busybox nc listens, and has `cat` answer each client."""
    switch.spawn("--name", "echo", "busybox", "nc", "-ll", "-p", "23", "-e", "busybox", "cat")
    switch.wait_for("echo:23")


ASK = "import socket, sys; s = socket.create_connection(('echo', 23)); s.send(b'hello'); print(s.recv(9).decode())"


@pytest.mark.program("busybox-static", "nc")
@pytest.mark.usefixtures("echo")
def test_busybox_nc(switch: Switch) -> None:
    """Among themselves, and with a client that has the shim."""
    for _ in range(3):
        assert switch.run("busybox", "nc", "echo", "23", input="hello\n").stdout == "hello\n"
    assert switch.run(sys.executable, "-c", ASK).stdout == "hello\n"


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("echo")
def test_busybox_telnet(switch: Switch) -> None:
    telnet = switch.spawn("busybox", "telnet", "echo", "23", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert telnet.stdin
    assert telnet.stdout
    telnet.stdin.write("hello\n")
    telnet.stdin.flush()
    assert telnet.stdout.readline() == "hello\n"
    telnet.stdin.close()
    assert telnet.wait(PATIENCE) == 0


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("files")
def test_busybox_nslookup(switch: Switch) -> None:
    (row,) = switch.rows("services")
    assert f"Address: {row['ip']}\n" in switch.run("busybox", "nslookup", "files").stdout


@pytest.mark.program("rclone")
def test_rclone_copies_from_rclone(switch: Switch, tmp_path: Path) -> None:
    """Many connections at once, by WebDAV, there and back."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    texts = {f"f{i}": f"{i}\n" * 1000 * i for i in range(40)}
    for name, text in texts.items():
        (source / name).write_text(text)
    rclone = ["env", "RCLONE_CONFIG=/dev/null", f"HOME={tmp_path}", "rclone", "--transfers", "8"]
    switch.spawn("--name", "dav", *rclone, "serve", "webdav", "--addr", ":80", str(source))
    switch.wait_for("dav:80")
    dav = ["--webdav-url", "http://dav", ":webdav:"]
    switch.run("--ip", IP, *rclone, "copy", *dav, str(target))
    assert {path.name: path.read_text() for path in target.iterdir()} == texts
    (target / "new").write_text("new\n")
    switch.run("--ip", IP, *rclone, "copy", str(target), *dav)
    assert (source / "new").read_text() == "new\n"


@pytest.mark.program("musl-gcc")
def test_a_static_musl_server(switch: Switch, tmp_path: Path) -> None:
    """With a client of its own kind, and one with the shim; by name: musl's resolver is in the program."""
    (tmp_path / "talk.c").write_text(TALK)
    talk = str(tmp_path / "talk")
    subprocess.run(["musl-gcc", "-static", "-O1", "-Wall", "-Werror", "-o", talk, f"{talk}.c"], check=True)
    assert b"ld-musl" not in Path(talk).read_bytes()
    switch.spawn("--name", "server", "--ip", "10.50.1.1", talk, "serve", "7000")
    switch.wait_for("server:7000")
    assert switch.run("--ip", IP, talk, "ask", "server", "7000").stdout == f"{IP}\n"
    dynamic = "import socket; print(socket.create_connection(('server', 7000)).recv(99).decode())"
    assert switch.run("--ip", IP, sys.executable, "-c", dynamic).stdout == f"{IP}\n"


@pytest.mark.program("busybox-static", "curl")
def test_without_a_namespace(switch: Switch, tmp_path: Path) -> None:
    """There is nothing else then to keep it from the host's network."""
    (tmp_path / "page").write_text("a page\n")
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        httpd = ["busybox", "httpd", "-f", "-p", str(port), "-h", str(tmp_path)]
        switch.spawn("--name", "files", "--no-netns", *httpd)
        switch.wait_for(f"files:{port}")
        (row,) = switch.rows("services")
        url = f"http://{row['ip']}:{port}/page"
        client = ["busybox", "wget", "-q", "-O", "-", url]
        assert switch.run("--name", "client", "--no-netns", *client).stdout == "a page\n"


@pytest.mark.program("busybox-static", "rclone")
def test_an_ordinary_user(way: str) -> None:
    """The filter costs NO_NEW_PRIVS then; the tracer needs no privilege."""
    with running_switch(user=65534 if os.geteuid() == 0 else None) as switch:
        switch.environment[VARIABLE] = way
        switch.spawn("--name", "files", "busybox", "httpd", "-f", "-p", "80", "-h", str(switch.directory))
        switch.wait_for("files:80")
        (switch.directory / "page").write_text("a page\n")
        rclone = ["env", "RCLONE_CONFIG=/dev/null", f"HOME={switch.directory}", "rclone"]
        for client in (["busybox", "wget", "-q", "-O", "-"], [*rclone, "-q", "copyurl", "--stdout"]):
            assert switch.run(*client, "http://files/page").stdout == "a page\n"


@pytest.mark.program("busybox-static")
def test_by_ld_preload_alone(switch: Switch, tmp_path: Path) -> None:
    """The shim in a dynamic shell hands the static program on to a tracer; nothing else has ever looked at it."""
    (tmp_path / "page").write_text("a page\n")
    preload = {**switch.environment, "LD_PRELOAD": str(shim_path())}
    httpd = ["bash", "-c", f"exec busybox httpd -f -p 80 -h {tmp_path}"]
    switch._popen(httpd, env={**preload, "APPSWITCH_NAME": "files"})
    switch.wait_for("files:80")
    get = ["bash", "-c", "busybox wget -q -O - http://files/page; exit $?"]
    environment = {**preload, "APPSWITCH_NAME": "client"}
    done = subprocess.run(get, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout == "a page\n", done


@pytest.mark.program("busybox-static")
@pytest.mark.usefixtures("files")
def test_a_trap_handler_that_is_started_again(switch: Switch) -> None:
    """Busybox doesn't notice; it is found, and its client's name is right."""
    get = ["--ip", IP, "busybox", "wget", "-q", "-O", "-", "http://files/cgi-bin/who"]
    assert switch.run(*get).stdout == f"[::ffff:{IP}]\n"
    switch.kill_server()
    switch.serve()
    switch.wait_for("files:80")
    assert switch.run(*get).stdout == f"[::ffff:{IP}]\n"


@pytest.mark.root
@pytest.mark.program("busybox-static", "rclone", "serf")
def test_between_hosts(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("a page\n" * 10_000)
    with network() as made:
        first, second = made.serve("a", "b")
        first.spawn("--name", "files", "busybox", "httpd", "-f", "-p", "80", "-h", str(tmp_path))
        rclone = ["env", "RCLONE_CONFIG=/dev/null", f"HOME={tmp_path}", "rclone"]
        for host in (second, first):
            host.wait_for("files:80")
            for client in (["busybox", "wget", "-q", "-O", "-"], [*rclone, "-q", "copyurl", "--stdout"]):
                assert host.run("--ip", IP, *client, "http://files/page").stdout == "a page\n" * 10_000
