"""Connections of other processes are ended, and no others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from appswitch.host.cut import shut_down
from tests.harness import open_descriptors

HOLD = """
import socket, sys
cut, other = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
print(cut.recv(9), other.recv(9))
"""


def inode(end: socket.socket) -> int:
    return os.fstat(end.fileno()).st_ino


def test_a_socket_that_another_process_holds() -> None:
    (ours, cut), (friend, other) = socket.socketpair(), socket.socketpair()
    with ours, friend:
        with cut, other:
            numbers = [cut.fileno(), other.fileno()]
            holder = subprocess.Popen(
                [sys.executable, "-c", HOLD, *map(str, numbers)], pass_fds=numbers, stdout=subprocess.PIPE
            )
            wanted = {inode(cut), 1}
        before = open_descriptors()
        assert shut_down(wanted) == wanted - {1}
        assert open_descriptors() == before
        assert ours.recv(1) == b""
        friend.send(b"goes on")
        assert holder.communicate()[0] == b"b'' b'goes on'\n"


def test_nothing_to_do() -> None:
    assert shut_down(set()) == set()


def test_a_file_with_the_same_inode_is_no_socket(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        assert shut_down({os.fstat(file.fileno()).st_ino}) == set()
        file.write("still open")
