"""Sockets placed in a namespace, which is made by a process of its own for each test."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

CODE = """
import errno, itertools, socket
from ipaddress import ip_address
import trio
from appswitch.edge import placing
from appswitch.edge.namespaces import Namespace
from appswitch.host import namespace, rtnetlink
from appswitch.host.maker import Maker
from threading import Thread

namespace.enter_new_namespace()
rtnetlink.make_everything_local(["10.1.1.1", "fd00::1"])
rtnetlink.strand_marked()
maker = Maker()
home = Namespace([maker.far_end])
Thread(target=maker.serve, daemon=True).start()
placing._ports = itertools.cycle([50000, 50001])
placing.TRIES = 2

async def main():
    for ip in ("10.1.1.2", "fd00::2"):
        client, server = ip_address(ip), (ip_address(ip) - 1, 7000)
        there = [await placing.place(home, client.version, (client, 0), server) for _ in range(2)]
        assert {each.getsockname()[1] for each in there} == {50000, 50001}
        try:
            await placing.place(home, client.version, (client, 0), server)
        except OSError as error:
            assert error.errno == errno.EAGAIN, error
        else:
            raise AssertionError("two sockets have one name")
        there.pop().close()
        (await placing.place(home, client.version, (client, 0), server)).close()
        there.pop().close()

trio.run(main)
"""


def test_a_port_that_is_chosen_is_nobody_elses() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
