"""The epoch's page: read by everybody, written by us, and by the kernel at our end."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from appswitch.edge.epoch import Epoch
from appswitch.host.last_word import OWNER_DIED


def read(page: mmap.mmap) -> int:
    (number,) = struct.unpack_from("=Q", page)
    assert isinstance(number, int)
    return number


@contextmanager
def mapped(fd: int) -> Iterator[mmap.mmap]:
    with mmap.mmap(fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as page:
        yield page


def test_it_grows() -> None:
    epoch = Epoch()
    with mapped(epoch.fd) as page:
        before = epoch.now
        assert read(page) == before != 0
        epoch.advance()
        assert read(page) == epoch.now == before + 1
        epoch.close()
        assert read(page) == OWNER_DIED << 32 | (before + 1) & 0xFFFFFFFF


def test_nobody_else_writes() -> None:
    epoch = Epoch()
    with pytest.raises(PermissionError):
        mmap.mmap(epoch.fd, mmap.PAGESIZE)
    with pytest.raises(PermissionError):
        os.write(epoch.fd, b"x")
    epoch.close()


def test_two_of_one_thread_differ() -> None:
    first = Epoch()
    first.close()
    second = Epoch()
    assert first.now & 0xFFFFFFFF != second.now & 0xFFFFFFFF
    second.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_kernel_tells_of_our_end(number: int) -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            epoch = Epoch()
            epoch.advance()
            socket.send_fds(theirs, [epoch.now.to_bytes(8, "little")], [epoch.fd])
            signal.pause()
        finally:
            os._exit(1)
    theirs.close()
    said, fds, _, _ = socket.recv_fds(ours, 8, 1)
    with mapped(fds[0]) as page:
        now = int.from_bytes(said, "little")
        assert read(page) == now
        os.kill(child, number)
        os.waitpid(child, 0)
        assert read(page) == OWNER_DIED << 32 | now & 0xFFFFFFFF
    os.close(fds[0])
    ours.close()
