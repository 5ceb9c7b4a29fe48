"""A network namespace for the datagrams of an app that has none of its own (spawn --no-netns, LD_PRELOAD alone).

The trap handler starts this program with a Unix socket, and gets through it what `spawn` passes along for its app: DNS
sockets, and a maker. It goes when the trap handler closes the maker.

    python -m appswitch.host.home FD IP ALIAS
"""

from __future__ import annotations

import socket
import sys

from appswitch.host import namespace, rtnetlink
from appswitch.host.maker import Maker

READY = b"ready"


def main() -> None:
    """Runs until the trap handler has no more use for it; ends with status 1 and a reason when it can't be."""
    fd, *addresses = sys.argv[1:]
    with socket.socket(fileno=int(fd)) as handler:
        try:
            namespace.enter_new_namespace()
            namespace.allow_low_ports()
            rtnetlink.make_everything_local(addresses)
            rtnetlink.strand_marked()
            maker = Maker()
            passed = [*namespace.open_dns_sockets(), maker.far_end]
        except (OSError, namespace.NamespaceForbidden) as error:
            handler.send(str(error).encode())
            sys.exit(1)
        socket.send_fds(handler, [READY], [each.fileno() for each in passed])
        for each in passed:
            each.close()
    maker.serve()


if __name__ == "__main__":
    main()
