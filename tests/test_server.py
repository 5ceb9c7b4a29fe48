"""The server as a whole: its settings, its sockets, and that no one caller can end it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from appswitch._wire import ffi, lib
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appswitch.errors import AppSwitchError
from appswitch.host.paths import control_socket, shim_path
from appswitch.server import parse_upstream, read_resolv_conf
from appswitch.wire import trap
from tests.harness import PATIENCE, Switch, eventually, running_switch, stop

# --- settings


def resolv_conf(directory: Path, text: str | bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    path = directory / "resolv.conf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_resolv_conf(path)


@pytest.mark.parametrize(
    ("text", "search", "servers"),
    [
        ("", (), ()),
        ("nameserver 10.0.0.1\n", (), ("10.0.0.1",)),
        ("nameserver 10.0.0.1\nnameserver\tfd00::1 # second\n", (), ("10.0.0.1", "fd00::1")),
        ("search A.example. b.example\n", ("a.example", "b.example"), ()),
        ("domain a.example\nsearch b.example\n", ("b.example",), ()),  # the last one counts (resolv.conf(5))
        ("search b.example\ndomain a.example\n", ("a.example",), ()),
        ("search .\n", (), ()),
        ("# nameserver 1.1.1.1\n; nameserver 2.2.2.2\n#nameserver 3.3.3.3\noptions ndots:5\n", (), ()),
        ("nameserver\nsearch\nnonsense\n\n", (), ()),
        ("nameserver 10.0.0.1", (), ("10.0.0.1",)),
    ],
)
def test_resolv_conf(tmp_path: Path, text: str, search: tuple[str, ...], servers: tuple[str, ...]) -> None:
    assert resolv_conf(tmp_path, text) == (search, servers)


def test_a_resolv_conf_with_things_that_are_no_addresses(tmp_path: Path) -> None:
    """One bad line must not cost the others; a name there would be asked of itself."""
    text = "nameserver not-an-address\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver 10.0.0.256\n"
    _, servers = resolv_conf(tmp_path, text)
    assert "10.0.0.1" in servers
    assert not {"not-an-address", "10.0.0.256"} & set(servers)


def test_a_resolv_conf_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert read_resolv_conf(tmp_path / "nothing") == ((), ())
    assert read_resolv_conf(tmp_path) == ((), ())
    assert resolv_conf(tmp_path, b"\xff\xfe\nnameserver 10.0.0.1\n\x00\n")[1] == ("10.0.0.1",)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("fd00::1", ("fd00::1", 53)),
        ("[fd00::1]", ("fd00::1", 53)),
        ("[fd00::1]:5353", ("fd00::1", 5353)),
        ("::1", ("::1", 53)),
    ],
)
def test_upstreams(text: str, address: tuple[str, int]) -> None:
    assert parse_upstream(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "10.0.0", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:-1", "[::1",
     "[::1]5353", "[::1]:", "[10.0.0.1", "10.0.0.1:5²"],
)  # fmt: skip
def test_not_upstreams(text: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        parse_upstream(text)
    assert error.value.reason == "bad-upstream"


# --- its sockets


def test_who_may_use_them(switch: Switch) -> None:
    """The trap socket is for every program; the control socket for this user."""
    assert stat.S_IMODE(switch.trap.stat().st_mode) == 0o666
    assert stat.S_IMODE(control_socket(switch.trap).stat().st_mode) == 0o600


def test_one_server_for_one_socket(switch: Switch) -> None:
    done = switch.command("serve", check=False)
    assert done.returncode == 1
    assert "already" in done.stderr
    assert "hint: " in done.stderr
    assert switch.rows("ps") == []  # the first one is as it was


def test_it_takes_its_sockets_away(switch: Switch) -> None:
    for number in (signal.SIGTERM, signal.SIGINT) * 3:  # each time at once after it has said that it serves
        server = switch._started[-1]
        server.send_signal(number)
        assert server.wait(PATIENCE) == 0
        assert not switch.trap.exists()
        assert not control_socket(switch.trap).exists()
        assert "Traceback" not in switch.log.read_text()
        switch.serve()


def test_stale_sockets_are_replaced(switch: Switch) -> None:
    server = switch._started[-1]
    server.kill()
    server.wait()
    assert switch.trap.exists()
    switch.serve()
    assert switch.rows("ps") == []
    assert switch.run("echo", "fine").stdout == "fine\n"


def test_serve_says_what_it_does(tmp_path: Path) -> None:
    """And nothing on stdout."""
    switch = Switch(tmp_path)
    server = switch.serve("--dns-upstream", "127.0.0.1:5353")
    server.terminate()
    server.wait(PATIENCE)
    text = switch.log.read_text()
    assert "serving" in text
    assert str(switch.trap) in text
    done = switch.command("serve", "--dns-upstream", "nonsense", check=False)
    assert done.returncode == 2
    assert "'nonsense'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_can_t_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    switch = Switch(tmp_path)
    for flags in (["--socket", f"{tmp_path}/file/s"], ["--state-dir", f"{tmp_path}/file/s"]):
        done = switch.command("serve", *flags, check=False)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "can't be used" in done.stderr
        assert "hint: " in done.stderr


# --- the trap socket


class Channel:
    """A channel as the shim has it; `app` is registered on the first."""

    def __init__(self, switch: Switch) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(switch.trap))
        self.token = bytes(trap.TOKEN_SIZE)

    def ask(self, op: int, text: bytes = b"") -> int:
        """The errno of the answer."""
        self.socket.send(frame(op, self.token, text))
        data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
        for fd in fds:
            os.close(fd)
        assert len(data) >= trap.REPLY_HEADER, "closed"
        reply = ffi.new("struct as_reply *")
        ffi.memmove(reply, data, len(data))
        assert reply.magic == lib.AS_MAGIC
        if op == lib.AS_REGISTER and not reply.error:
            self.token = bytes(reply.token)
        return int(reply.error)

    def is_closed(self) -> bool:
        """Waits for the end."""
        try:
            return self.socket.recv(4096) == b""
        except ConnectionError:
            return True


def frame(op: int, token: bytes = bytes(16), text: bytes = b"") -> bytes:
    request = ffi.new("struct as_request *")
    request.magic = lib.AS_MAGIC
    request.op = op
    request.text_size = len(text)
    ffi.memmove(request.token, token, len(token))
    return bytes(ffi.buffer(request, trap.HEADER)) + text


@contextmanager
def channel(switch: Switch, name: str | None = None) -> Iterator[Channel]:
    opened = Channel(switch)
    with opened.socket:
        if name is not None:
            assert opened.ask(lib.AS_REGISTER, f"APPSWITCH_NAME={name}".encode()) == 0
        yield opened


@pytest.fixture(scope="module")
def shared() -> Iterator[Switch]:
    with running_switch() as switch:
        yield switch


def works(opened: Channel) -> bool:
    return opened.ask(lib.AS_RESOLVE, b"me") == 0


GOOD = frame(lib.AS_RESOLVE, text=b"me")
MALFORMED = {
    "one byte": b"x",
    "truncated head": GOOD[: trap.HEADER - 1],
    "truncated text": GOOD[:-1],
    "more than it says": GOOD + b"x",
    "oversize": GOOD.ljust(trap.FRAME_SIZE + 1, b"\0"),
    "huge": GOOD.ljust(100000, b"\0"),
    "wrong magic": b"ASx1" + GOOD[4:],
    "no such operation": GOOD[:4] + struct.pack("=H", 999) + GOOD[6:],
    "no UTF-8": GOOD[:-2] + b"\xff\xfe",
    "zeros": bytes(trap.FRAME_SIZE),
}


@pytest.mark.parametrize("registered", [True, False], ids=["app", "stranger"])
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_frame_ends_its_channel_only(shared: Switch, data: bytes, registered: bool) -> None:
    with channel(shared, "me") as good, channel(shared, "me" if registered else None) as bad:
        bad.socket.send(data)
        assert bad.is_closed()
        assert works(good)
    with channel(shared, "me") as another:
        assert works(another)
    assert "malformed frame" in shared.log.read_text()


@pytest.mark.parametrize("version", [b"0", b"2"])
@pytest.mark.parametrize("rest", [GOOD[4:], b"", b"\xff" * 5000], ids=["as ours", "nothing", "much"])
def test_another_version_is_answered_in_that_one(shared: Switch, version: bytes, rest: bytes) -> None:
    """Whatever follows; the channel stays, and is told of once."""
    with channel(shared) as other, channel(shared, "me") as good:
        before = shared.log.read_text().count("another version")
        for _ in range(3):
            other.socket.send(b"ASW" + version + rest)
            answer = other.socket.recv(8192)
            assert answer[:8] == b"ASW" + version + struct.pack("=i", errno.EPROTONOSUPPORT)
            assert len(answer) > trap.REPLY_HEADER
        assert works(good)
        said = shared.log.read_text()
        assert said.count("another version") == before + 1
        assert f"its={version.decode()} ours=1" in said


def test_a_program_whose_library_is_of_another_version(switch: Switch, tmp_path: Path) -> None:
    """It is told at once what to do, and doesn't wait for another trap handler."""
    library = tmp_path / "libappswitch.so"
    ours = shim_path().read_bytes()
    assert ours.count(b"ASW1") > 1, "as an operand of instructions"
    library.write_bytes(ours.replace(b"ASW1", b"ASW2"))
    code = "import socket; print(socket.socket().connect_ex(('10.9.9.9', 80)))"
    environment = {**switch.environment, "LD_PRELOAD": str(library), "APPSWITCH_NAME": "late"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.stdout == f"{errno.EPROTONOSUPPORT}\n"
    assert "another version than this program's" in done.stderr
    assert "hint: start this program again" in done.stderr
    assert "its=2 ours=1" in switch.log.read_text()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=1500), max_size=3))
@example([frame(lib.AS_BIND)])
@example([frame(lib.AS_LISTEN)])
@example([frame(lib.AS_CONNECT)])
@example([frame(lib.AS_REGISTER, text=b"APPSWITCH_IP=nonsense\0APPSWITCH_TAGS=,,=,")])
@example([frame(lib.AS_REGISTER, text=b"\0\0=\0APPSWITCH_NAME\0")])
def test_random_frames(shared: Switch, several: list[bytes]) -> None:
    with channel(shared, "me") as good:
        with channel(shared) as bad:
            for data in several:
                try:
                    bad.socket.send(data)
                except ConnectionError:
                    break
        assert works(good)


def test_a_stranger_is_told_to_register(shared: Switch) -> None:
    with channel(shared) as stranger:
        for op in (lib.AS_LISTEN, lib.AS_RESOLVE):
            assert stranger.ask(op, b"") == 3  # ESRCH
        stranger.token = b"guess" * 3 + b"!"
        assert stranger.ask(lib.AS_RESOLVE) == 3


def test_a_token_is_good_on_other_channels(shared: Switch) -> None:
    with channel(shared, "me") as first, channel(shared) as second:
        second.token = first.token
        assert works(second)
        assert second.ask(lib.AS_REGISTER, b"APPSWITCH_NAME=other") == 17  # EEXIST: it is somebody already


def test_an_app_goes_with_its_last_channel(switch: Switch) -> None:
    with channel(switch, "me") as first, channel(switch) as second:
        second.token = first.token
        assert works(second)
        first.socket.close()
        assert [app["name"] for app in switch.rows("ps")] == ["me"]
    eventually(lambda: switch.rows("ps") == [], within=2)


def test_who_never_reads_answers_holds_up_no_one(shared: Switch) -> None:
    with channel(shared, "me") as deaf, channel(shared, "me") as good:
        deaf.socket.setblocking(False)
        asked = frame(lib.AS_RESOLVE, deaf.token, b"me")
        with suppress(BlockingIOError):  # both queues are full then
            while True:
                deaf.socket.send(asked)
        assert works(good)


def test_descriptors_that_a_caller_sends_along_are_dropped(shared: Switch) -> None:
    with channel(shared, "me") as opened:
        read_end, write_end = os.pipe()
        for _ in range(20):
            socket.send_fds(opened.socket, [frame(lib.AS_RESOLVE, opened.token, b"me")], [write_end])
            opened.socket.recv(4096)
        os.close(write_end)
        assert os.read(read_end, 1) == b""  # at its end: nobody else has the other one
        os.close(read_end)


def test_many_channels_that_come_and_go(switch: Switch) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{switch._started[0].pid}/fd").iterdir()))

    assert switch.rows("ps") == []  # all that it opens at its start is open
    before = descriptors()
    several = [Channel(switch) for _ in range(200)]
    assert several[-1].ask(lib.AS_RESOLVE) == 3
    for each in several:
        each.socket.close()
    eventually(lambda: descriptors() <= before)


@pytest.mark.root
def test_another_user_may_not_register(switch: Switch) -> None:
    """LD_PRELOAD without the wrapper is for the trap handler's own user."""
    code = "import socket; socket.create_server(('', 8000)).close()"
    environment = {**switch.environment, "LD_PRELOAD": switch.command("--shim-path").stdout.strip()}
    command = ["/usr/bin/python3", "-c", code]
    done = subprocess.run(
        command, env=environment, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False,
        timeout=PATIENCE,
    )  # fmt: skip
    assert "PermissionError" in done.stderr
    assert "registration refused" in switch.log.read_text()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")


def test_preload_without_the_wrapper(switch: Switch) -> None:
    code = "import socket, sys; s = socket.create_server(('', 8000)); print('ready', flush=True); sys.stdin.read()"
    environment = {
        **switch.environment,
        "LD_PRELOAD": switch.command("--shim-path").stdout.strip(),
        "APPSWITCH_NAME": "web",
        "APPSWITCH_IP": "10.1.1.1",
        "APPSWITCH_TAGS": "grp=1,grp=2",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        (service,) = switch.rows("services")
        assert (service["name"], service["ip"], service["tags"]) == ("web", "10.1.1.1", ["grp=1", "grp=2"])
    finally:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    eventually(lambda: switch.rows("ps") == [], within=2)


def test_it_survives_the_loss_of_its_state(switch: Switch) -> None:
    """A program without a namespace, which runs on, registers with the new server as who it was."""
    code = """
import socket, sys
with socket.create_server(("", 80)):
    print("ready", flush=True)
    sys.stdin.readline()
with socket.create_server(("", 81)):
    print("ready again", flush=True)
    sys.stdin.readline()
"""
    command = ("--no-netns", "--name", "x", "--tag", "grp=1", sys.executable, "-c", code)
    process = switch.spawn(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    assert process.stdin
    assert process.stdout.readline() == "ready\n"
    stop(switch._started[0])
    shutil.rmtree(switch.directory / "trap.sock.state")
    switch.serve()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready again\n"
    (service,) = switch.rows("services")
    assert (service["name"], service["port"], service["tags"]) == ("x", 81, ["grp=1"])
    process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0
