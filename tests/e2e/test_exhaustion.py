"""Descriptors, disk, memory or processes run out: the call fails, nothing hangs, and afterwards all is well again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_restart import DIALLER, HELLO
from tests.harness import Switch, Talker, eventually, idle_switch, running_switch

PYTHON = sys.executable
LIMIT = 400  # descriptors of the trap handler
LISTENS = """
import errno, socket, sys
kept = []
for line in sys.stdin:
    if line.strip() == "close":
        kept.clear()
        print("closed", flush=True)
        continue
    error = 0
    while not error and len(kept) < int(line):
        s = socket.socket()
        kept.append(s)
        try:
            s.bind(("", 0))
            s.listen()
        except OSError as failed:
            error = failed.errno
            kept.pop()
    print(len(kept), error, flush=True)
"""
PROCESSES = """
import os, signal, socket, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
read_end, write_end = os.pipe()
children, answers = [], b""
def start():
    if (pid := os.fork()) > 0:
        return pid
    while True:
        error = socket.socket().connect_ex(("10.9.9.1", 80))
        os.write(write_end, b"%d " % error)
        signal.sigwait([signal.SIGUSR1])  # the channel stays meanwhile
for _ in range(int(sys.argv[1])):
    children.append(start())
    answers += os.read(read_end, 9)
for each in children:
    os.kill(each, signal.SIGUSR1)
    answers += os.read(read_end, 9)
print(len(answers.split()), *set(answers.split()), flush=True)
sys.stdin.read()
for each in children:
    os.kill(each, signal.SIGKILL)
"""


@contextmanager
def limited(*prlimit: str) -> Iterator[Switch]:
    """A trap handler with these limits, its programs without."""
    with idle_switch() as switch:
        switch.prefix = ["prlimit", *prlimit, "--"]
        switch.serve()
        switch.prefix = []
        yield switch


@pytest.fixture
def few_descriptors() -> Iterator[Switch]:
    with limited(f"--nofile={LIMIT}") as switch:
        yield switch


@pytest.mark.root
def test_listeners_without_end(few_descriptors: Switch) -> None:
    """One app's are at an end before the trap handler's descriptors are; it is told ENOBUFS."""
    switch = few_descriptors
    greedy = Talker(switch, "--name", "greedy", PYTHON, "-c", LISTENS)
    assert greedy.ask("500") == f"{LIMIT // 4} {errno.ENOBUFS}"
    switch.spawn("--name", "web", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    assert switch.run(PYTHON, "-c", DIALLER, input="web 80\n").stdout.startswith("web sees")
    (refused, *_) = switch.events("--kind", "bind-refused")
    assert "no more for one" in refused["reason"]
    assert greedy.ask("close") == "closed"
    eventually(lambda: greedy.ask("10") == "10 0")


@pytest.mark.root
def test_channels_without_end(few_descriptors: Switch) -> None:
    """Each process has one: the oldest end, and nobody notices."""
    switch = few_descriptors
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    many = Talker(switch, "--name", "many", PYTHON, "-c", PROCESSES, str(LIMIT))
    assert many.hear() == f"{2 * LIMIT} b'0'"
    assert len(list(Path(f"/proc/{switch.server.pid}/fd").iterdir())) < LIMIT // 2
    assert switch.run(PYTHON, "-c", DIALLER, input="web 80\n").stdout.startswith("web sees")


@pytest.mark.root
def test_an_app_without_descriptors(switch: Switch) -> None:
    """As plain: EMFILE by socket(), and what it has goes on."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    code = """
import errno, os, resource, socket
s = socket.socket()
resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
kept = []
try:
    while True:
        kept.append(os.dup(0))
except OSError as full:
    print(full.errno)
error = s.connect_ex(("10.9.9.1", 80))
print(error)
kept.clear() if error == 0 else [os.close(each) for each in kept]
s = s if error == 0 else socket.socket()
print(0 if error == 0 else s.connect_ex(("10.9.9.1", 80)))
print(s.recv(9))
"""
    done = switch.run(PYTHON, "-c", code)
    first, second, third, said = done.stdout.splitlines()
    assert (int(first), int(third), said) == (errno.EMFILE, 0, "b'web sees '")
    assert int(second) in (0, errno.EMFILE)


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    """The journal is behind, and says so; calls are answered; with room again, a successor knows all."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(state)], check=True)
    try:
        with idle_switch() as switch:
            switch.serve("--state-dir", str(state))
            filler = state / "filler"
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(bytes(1 << 20))
            switch.spawn("--name", "web", PYTHON, "-c", HELLO, "web", "x" * 5000)  # more than the file's last page has
            switch.wait_for("web:80")
            assert "a successor won't know everything" in switch.log.read_text()
            client = Talker(switch, PYTHON, "-c", DIALLER)
            assert client.ask("web 80").startswith("web sees")
            filler.unlink()
            switch.spawn("--name", "other", PYTHON, "-c", HELLO, "other")
            switch.wait_for("other:80")
            switch.kill_server()
            switch.serve("--state-dir", str(state))
            assert {row["name"] for row in switch.rows("services")} == {"web", "other"}
            assert client.ask("web 80").startswith("web sees")
    finally:
        subprocess.run(["umount", "-l", str(state)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["netns", "no-netns"])
def test_no_more_processes(flags: list[str]) -> None:
    """`spawn` says so, and leaves nothing."""
    with running_switch(user=65534) as switch:
        switch.prefix = ["prlimit", "--nproc=1", "--"]  # it counts all of the user's
        done = switch.run(*flags, "true", check=False)
        switch.prefix = []
        assert done.returncode == 125
        assert os.strerror(errno.EAGAIN) in done.stderr
        assert "Traceback" not in done.stderr
        eventually(lambda: not switch.rows("ps"))
        assert switch.run(*flags, "echo", "fine").stdout == "fine\n"


@pytest.mark.root
def test_an_app_without_memory(switch: Switch) -> None:
    """The shim needs some pages once; without them it asks by a connection for each call."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    code = """
import resource, socket
kept = [socket.socket() for _ in range(5)]
used = int(open("/proc/self/statm").read().split()[0]) * 4096
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used, hard))
print(*(s.connect_ex(("10.9.9.1", 80)) for s in kept))
print(*(s.recv(3).decode() for s in kept))
"""
    done = switch.run(PYTHON, "-c", code)
    assert done.stdout == "0 0 0 0 0\nweb web web web web\n"
