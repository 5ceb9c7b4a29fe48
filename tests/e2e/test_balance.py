"""Several instances of one service, and connects without asking."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from tests.harness import PATIENCE, Switch, eventually

PYTHON = sys.executable
SERVER = """
import socket, sys
s = socket.create_server(("", 7000))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[1].encode())
    c.close()
"""
WEB = SERVER.replace("    c.sendall", "    c.recv(999)\n    c.sendall")
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[1])):
    print(socket.create_connection(("web", 7000)).recv(9).decode())
"""

SLOW = """
import socket, sys
s = socket.create_server(("", 7000))
kept = []
while True:
    kept.append(s.accept()[0])
    kept[-1].sendall(sys.argv[1].encode())
"""
ASKING = """
import socket, sys
for line in sys.stdin:
    print(*(socket.create_connection(("web", 7000)).recv(9).decode() for _ in range(int(line))), flush=True)
"""
RESTLESS = """
import select, socket, sys
while not select.select([sys.stdin], [], [], 0)[0]:
    s = socket.create_connection(("web", 7000))
    try:
        print(s.recv(9).decode() or "lost", flush=True)
    except ConnectionResetError:
        print("lost", flush=True)
"""

FORKING = """
import os, socket, sys
def ask():
    return socket.create_connection(("web", 7000)).recv(9).decode()
for _ in range(4):
    ask()  # from now on it connects by capability
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        os.write(1, ask().encode() + b"\\n")
        os._exit(0)
    os.wait()
"""


def serve(switch: Switch, *letters: str, tags: tuple[str, ...] = (), program: str = SERVER) -> None:
    """An instance of web a letter, which it says to whoever connects."""
    flags = [word for tag in tags for word in ("--tag", tag)]
    there = len(switch.rows("services"))
    for letter in letters:
        switch.spawn("--name", "web", *flags, PYTHON, "-c", program, letter)
    eventually(lambda: len(switch.rows("services")) == there + len(letters))


def met(switch: Switch, *command: str) -> Counter[str]:
    """How often each was met by a program."""
    return Counter(switch.run(*command, timeout=90).stdout.split())


def is_even(counts: Counter[str], instances: int) -> bool:
    """Within 10 %."""
    fair = counts.total() / instances
    return len(counts) == instances and all(abs(count - fair) <= fair / 10 for count in counts.values())


def test_each_instance_gets_its_share(switch: Switch) -> None:
    serve(switch, *"abcd")
    counts = met(switch, PYTHON, "-c", CLIENT, "1000")
    assert counts.total() == 1000
    assert is_even(counts, 4), counts
    counts = Counter("".join(switch.run(PYTHON, "-c", CLIENT, "1").stdout.split()) for _ in range(8))
    assert set(counts.values()) == {2}, "short-lived clients are spread, too"


@pytest.mark.program("curl")
def test_many_short_processes(switch: Switch) -> None:
    serve(switch, *"abcd", program=WEB)
    script = "for i in $(seq 200); do curl -s --http0.9 http://web:7000/; echo; done"
    counts = met(switch, "sh", "-c", script)
    assert counts.total() == 200
    assert is_even(counts, 4), counts


def test_processes_that_are_forked_off_one_that_knows_its_way(switch: Switch) -> None:
    """All of them know the same, and go on with the same turns."""
    serve(switch, *"abcd")
    counts = met(switch, PYTHON, "-c", FORKING, "400")
    assert counts.total() == 400
    assert is_even(counts, 4), counts


def test_more_instances_than_a_client_has_room_for(switch: Switch) -> None:
    letters = "abcdefghijklmnopqrst"
    serve(switch, *letters)
    counts = met(switch, PYTHON, "-c", CLIENT, "1000")
    assert counts.total() == 1000
    assert is_even(counts, 20), counts


def test_weights(switch: Switch) -> None:
    serve(switch, "a", tags=("weight=3",))
    serve(switch, "b")
    serve(switch, "z", tags=("weight=0",))
    counts = met(switch, PYTHON, "-c", CLIENT, "1000")
    assert counts["a"] == pytest.approx(750, abs=25), counts
    assert counts["b"] == 1000 - counts["a"]
    counts = Counter("".join(switch.run(PYTHON, "-c", CLIENT, "1").stdout.split()) for _ in range(8))
    assert counts == {"a": 6, "b": 2}


def test_a_new_instance_takes_its_share_at_once(switch: Switch) -> None:
    serve(switch, "a")
    asking = switch.spawn(PYTHON, "-c", ASKING, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    questions, answers = asking.stdin, asking.stdout
    assert questions is not None
    assert answers is not None
    with questions, answers:

        def ask(times: int) -> Counter[str]:
            questions.write(f"{times}\n")
            questions.flush()
            return Counter(answers.readline().split())

        assert ask(10) == {"a": 10}
        serve(switch, "b")
        assert is_even(ask(100), 2)
        serve(switch, "c")
        assert is_even(ask(90), 3)


def test_bad_tags_are_refused(switch: Switch) -> None:
    for tag, said in (("weight=many", "weight=many is no weight"), ("balance=best", "no way to balance")):
        done = switch.run("--tag", tag, "true", check=False)
        assert said in done.stderr
        assert done.returncode == 2
    done = switch.run("--no-netns", "--tag", "weight=-1", "true", check=False)
    assert "hint: 0 to 256" in done.stderr


def test_least_connections(switch: Switch) -> None:
    """Of two instances one holds on to its connections: the other one gets the next ones, at any pace but a rush."""
    serve(switch, "quick", tags=("balance=least-connections",))
    switch.spawn("--name", "web", PYTHON, "-c", SLOW, "slow")
    eventually(lambda: len(switch.rows("services")) == 2)
    counts = Counter("".join(switch.run(PYTHON, "-c", CLIENT, "1").stdout.split()) for _ in range(16))
    assert counts["slow"] >= 1, counts
    assert counts["quick"] >= 12


def test_no_client_notices_an_instance_that_goes_and_comes(switch: Switch) -> None:
    """10 x: the client runs throughout, one of two instances is killed and started again."""
    switch.spawn("--name", "web", PYTHON, "-c", SERVER, "a")
    switch.wait_for("web:7000")
    client = switch.spawn(PYTHON, "-c", RESTLESS, stdin=subprocess.PIPE)

    def so_far() -> Counter[str]:
        return Counter(client.log.read_text().split())  # type: ignore[attr-defined]

    for _ in range(10):
        before = so_far()
        other = switch.spawn("--name", "web", PYTHON, "-c", SERVER, "b")
        eventually(lambda before=before: all(so_far()[each] > before[each] + 10 for each in "ab"))
        other.kill()
        other.wait()
    client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, switch.logs()
    counts = so_far()
    assert set(counts) <= {"a", "b", "lost"}
    assert counts["lost"] < 100, "connections that sat in the queue of an instance when it was killed"


@pytest.mark.program("strace")
def test_the_trap_handler_is_asked_for_two_connects_and_a_name(switch: Switch) -> None:
    """In the steady state a connect is between the client and the kernel; data is, from the first byte."""
    switch.spawn("--name", "web", PYTHON, "-c", SERVER, "a")
    switch.wait_for("web:7000")
    trace = switch.directory / "trace"
    switch.run("strace", "-f", "-o", str(trace), PYTHON, "-c", CLIENT, "100")
    calls = trace.read_text()
    assert calls.count("sendmsg(10") == 3, "requests on the channel, whose descriptor is 1000 or so"
    assert calls.count('recvfrom(3, "a"') == 100
