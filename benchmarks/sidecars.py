"""A proxy at each end, as a mesh has it: the client speaks to the one in its own namespace, over loopback; that one
over the bridge to the one in the server's namespace; that one to the server, over loopback.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import proxies
from benchmarks.ways import BRIDGED_IPS, HAPROXY, NGINX, PORTS, Bench, Ends
from tests.hosts import Namespace

COMMANDS: dict[str, Callable[[Path, proxies.Passes], list[str]]] = {HAPROXY: proxies.haproxy, NGINX: proxies.nginx}
PORT = {HAPROXY: 7100, NGINX: 7200}
FAR, NEAR = 10, 20  # where the ports of the proxies begin, after those of the server


def sidecars(bench: Bench, name: str, server: Namespace, client: Namespace) -> Ends:
    """The ends of such a way, between two namespaces of `ways.bridged`. name: HAPROXY or NGINX.

    The proxies go with the namespaces.
    """
    port = PORT[name]
    server_ip = BRIDGED_IPS[0]
    home = bench.home / name.split()[0]
    sides = {
        "far": (server, [(f"{server_ip}:{port + FAR + n}", f"127.0.0.1:{port + n}") for n in range(PORTS)]),
        "near": (client, [(f"127.0.0.1:{port + NEAR + n}", f"{server_ip}:{port + FAR + n}") for n in range(PORTS)]),
    }
    started = []
    for side, (where, passes) in sides.items():
        directory = home / side
        directory.mkdir(parents=True)
        started.append(where.start(*COMMANDS[name](directory, passes), log=directory / "log").pid)
    return Ends(name, tuple(server.enter), tuple(client.enter), port=port, at=port + NEAR, between=tuple(started))
