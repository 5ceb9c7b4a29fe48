"""Making a network namespace an app's, from inside: every address local, name servers, and its registration."""

from __future__ import annotations

from pathlib import Path

from appswitch.host import namespace, rtnetlink
from appswitch.host.control_client import ControlClient
from appswitch.host.keeper import Keeper
from appswitch.host.maker import Maker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def furnish(trap: Path, arguments: dict[str, object]) -> tuple[Keeper, dict[str, Any]]:
    """Registers the namespace that this process is in; also what the trap handler says of the app.

    arguments: of the control call `spawn`. AppSwitchError: it is refused; OSError: the kernel forbids it.
    """
    namespace.allow_low_ports()
    rtnetlink.make_everything_local([])
    rtnetlink.strand_marked()
    udp, *kept = [*namespace.open_dns_sockets(), namespace.open_diag_socket()]
    maker = Maker([udp])
    passed = [udp, *kept, maker.far_end]
    client = ControlClient(trap)  # from inside: this is how the trap handler learns which namespace is the app's
    answer = client.call("spawn", arguments, [each.fileno() for each in passed])
    maker.far_end.close()
    rtnetlink.make_everything_local([answer["ip"], answer["alias"]])
    return Keeper(trap, client, maker=maker, kept=kept), answer
