"""`appswitch why`: the plan of a connect, told instead of carried out."""

from __future__ import annotations

from ipaddress import ip_address

from attrs import frozen

from appswitch.core import route
from appswitch.core.policy import Policy
from appswitch.core.route import LOOPBACK, ConnectPlan, Egress, Judged, Kernel, Local, Refuse
from appswitch.core.service_table import ServiceTable, plain_name
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App


@frozen
class Why:
    """clients: the apps that the question may be about, the first of which is the one that the plan is for."""

    clients: tuple[App, ...]
    ip: Address
    port: int
    plan: ConnectPlan

    @property
    def judged(self) -> tuple[Judged, ...]:
        """The instances that serve there, and what policy says of each."""
        return self.plan.judged if isinstance(self.plan, Local | Refuse) else ()

    @property
    def decisive(self) -> Judged | None:
        """The first instance that may be reached, else the first one that may not."""
        allowed = (each for each in self.judged if each.verdict.allowed)
        return next(allowed, self.judged[0] if self.judged else None)

    @property
    def verdict(self) -> str:
        """In a word."""
        match self.plan:
            case Local():
                return "audit" if self.plan.audited else "allow"
            case Egress():
                return "outside"
            case Kernel():
                return "dns"
            case Refuse(denied=True):
                return "deny"
            case Refuse():
                return "unreachable"


def why(table: ServiceTable, policy: Policy, client: str, dest: str, port: int, *, gateway: bool) -> Why:
    """What a connect of `client` (an id, a name or an IP) to `dest` (a name or an IP) would come to.

    AppSwitchError `unknown-app` or `unknown-name` when there is none.
    """
    clients = tuple(table.apps_called(client))
    if not clients:
        raise AppSwitchError("unknown-app", f"there is no app {client!r}", "`appswitch ps` lists the apps")
    ip = _address(table, dest)
    if ip is None:
        raise AppSwitchError("unknown-name", f"no app is named {dest!r}", "`appswitch ps` lists the apps")
    return Why(clients, ip, port, route.plan_connect(table, policy, clients[0], ip, port, gateway=gateway))


def _address(table: ServiceTable, text: str) -> Address | None:
    if plain_name(text) == "localhost":
        return LOOPBACK[4]
    try:
        return ip_address(text)
    except ValueError:
        return table.resolve(plain_name(text))
