"""Sets up a network namespace of the bridged way, from inside: `python -m benchmarks.bridge hub PID... | end ADDRESS`.

A program of its own, run by nsenter, because pyroute2's NetNS forks: should the fork fail half-way, it would go on as a
second benchmark and clean up what the first one uses.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pyroute2 import IPRoute


def make_hub(ip: IPRoute, ends: Sequence[str]) -> None:
    """A bridge, and a veth pair from it into the namespace of each process in `ends`, where it is eth0."""
    ip.link("add", ifname="bridge", kind="bridge")
    (index,) = ip.link_lookup(ifname="bridge")
    ip.link("set", index=index, state="up")
    for pid in ends:
        ip.link("add", ifname=f"to{pid}", kind="veth", peer={"ifname": "eth0", "net_ns_pid": int(pid)})
        (port,) = ip.link_lookup(ifname=f"to{pid}")
        ip.link("set", index=port, master=index, state="up")


def make_end(ip: IPRoute, address: str) -> None:
    """eth0 with its address, up."""
    (index,) = ip.link_lookup(ifname="eth0")
    ip.addr("add", index=index, address=address, prefixlen=24)
    ip.link("set", index=index, state="up")


def main(role: str, *arguments: str) -> None:
    with IPRoute() as ip:
        if role == "hub":
            make_hub(ip, arguments)
        else:
            make_end(ip, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
