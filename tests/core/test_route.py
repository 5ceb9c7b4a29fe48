"""The two decisions. Where the kernel has a rule of its own, the kernel is asked: random sockets in a namespace."""

from __future__ import annotations

import errno
import random
import select
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pyroute2 import IPRoute

from appswitch.core import route
from appswitch.core.policy import Action, Policy, Rule, Selector, Verdict
from appswitch.core.route import EPHEMERAL, BindRequest, Egress, Kernel, Reach, Refuse
from appswitch.core.service_table import ServiceTable
from appswitch.host import namespace
from appswitch.model import Address, App, Listener, Tag

V4, OTHER_V4 = ip_address("10.1.1.1"), ip_address("10.1.1.2")
V6 = ip_address("fd00::1")
OUTSIDE = ip_address("198.51.100.7")  # RFC 5737
RNG = random.Random(1)


class World:
    """A table, and what tests do with it."""

    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.policy = Policy()

    def app(
        self,
        ip: Address | None = V4,
        *,
        name: str | None = None,
        tags: tuple[Tag, ...] = (),
        exclusive: bool = False,
        netns: bool = True,
    ) -> App:
        return self.table.new_app(name=name, ip=ip, tags=tags, exclusive=exclusive, netns=netns)

    def bind(self, app: App, ip: str, port: int = 80, family: int = 0, **options: bool) -> Listener | Refuse:
        address = ip_address(ip)
        plan = route.plan_bind(self.table, app, BindRequest(family or address.version, address, port, **options), RNG)
        if isinstance(plan, Listener):
            self.table.add_listener(plan)
        return plan

    def serve(self, app: App, ip: str, port: int = 80, family: int = 0, **options: bool) -> Listener:
        bound = self.bind(app, ip, port, family, **options)
        assert isinstance(bound, Listener), bound
        refused = route.plan_listen(self.table, bound)
        assert refused is None
        return self.table.mark_listening(bound.id)

    def connect(
        self,
        app: App,
        dest: Address | str,
        port: int = 80,
        gateway: bool = False,
        bound: tuple[Address, int] | None = None,
    ) -> Reach | Egress | Kernel | Refuse:
        dest = ip_address(dest) if isinstance(dest, str) else dest
        return route.plan_connect(self.table, self.policy, app, dest, port, gateway=gateway, bound=bound)

    def reached(self, app: App, dest: Address | str, port: int = 80) -> set[int]:
        """The ids of the listeners that a connect may reach."""
        plan = self.connect(app, dest, port)
        return {each.id for each in plan.candidates} if isinstance(plan, Reach) else set()


@pytest.fixture
def world() -> World:
    return World()


def refused(plan: object, error: int, denied: bool = False) -> bool:
    assert isinstance(plan, Refuse), plan
    assert plan.reason
    return (plan.error, plan.denied) == (error, denied)


# --- bind and listen, as the kernel has it (bind(2), socket(7), ip(7), ipv6(7))


class Ask(NamedTuple):
    """One socket: what it binds, and its options."""

    family: int
    ip: str
    v6only: bool
    reuse_addr: bool
    reuse_port: bool
    listen: bool


APP = World().app()
ALIAS = str(APP.alias)
V4_PLACES = ["0.0.0.0", "127.0.0.1", "127.0.0.2", "10.1.1.1", "10.1.1.2"]
V6_PLACES = ["::", "::1", ALIAS, "fd00::99", *(f"::ffff:{place}" for place in V4_PLACES)]
FOREIGN = {"10.1.1.2", "::ffff:10.1.1.2", "fd00::99"}


def asks(**fixed: bool) -> st.SearchStrategy[Ask]:
    options = {name: st.just(fixed[name]) if name in fixed else st.booleans() for name in Ask._fields[2:]}
    one_v4 = st.builds(Ask, st.just(4), st.sampled_from(V4_PLACES), **options | {"v6only": st.just(False)})
    one_v6 = st.builds(Ask, st.just(6), st.sampled_from(V6_PLACES), **options)
    return one_v4 | one_v6


class Kernels:
    """Sockets of a network namespace that has the addresses of `APP`."""

    def __init__(self) -> None:
        # A thread has a namespace of its own; a socket stays in that of the thread that has made it.
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self._failed: Exception | None = None
        self._used = 0

    def _enter(self) -> None:
        try:
            namespace.enter_new_namespace()
            # What the app owns and nothing else: binding elsewhere is EADDRNOTAVAIL. (Connecting, too, stays inside.)
            with IPRoute() as netlink:
                netlink.link("set", index=1, state="up")
                for ip in (APP.ip, APP.alias):
                    netlink.addr("add", index=1, address=str(ip), prefixlen=ip.max_prefixlen)
        except Exception as error:
            self._failed = error

    def make(self, family: int) -> socket.socket:
        kind = socket.AF_INET6 if family == 6 else socket.AF_INET
        made = self._thread.submit(socket.socket, kind, socket.SOCK_STREAM).result()
        if self._failed:
            made.close()
            raise self._failed
        return made

    def close(self) -> None:
        self._thread.shutdown()

    def bind(self, ask: Ask, port: int) -> tuple[socket.socket, int]:
        """A socket and the errno of its bind."""
        made = self.make(ask.family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, ask.reuse_addr)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, ask.reuse_port)
        if ask.family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, ask.v6only)
        try:
            made.bind((ask.ip, port))
        except OSError as error:
            return made, error.errno or 0
        return made, 0

    def next_port(self) -> int:
        """One that no earlier example has used: connections of theirs may linger."""
        self._used += 1
        return 1024 + self._used


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernels]:
    kernels = Kernels()
    try:
        yield kernels
    finally:
        kernels.close()


def listen_errno(bound: socket.socket) -> int:
    try:
        bound.listen()
    except OSError as error:
        return error.errno or 0
    return 0


def wanted(ask: Ask, port: int) -> BindRequest:
    """As the shim asks: a v4-mapped address is IPv4."""
    ip = ip_address(ask.ip)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return BindRequest(ask.family, ip, port, ask.v6only, ask.reuse_addr, ask.reuse_port)


def same_in_kernel_and_plan(
    kernel: Kernels, several: list[Ask], stack: ExitStack
) -> tuple[ServiceTable, list[socket.socket], int]:
    """Binds and listens in both worlds; every errno must agree. What came of it is in the table and in the list."""
    table = ServiceTable("n1")
    table.revive(APP)
    port = kernel.next_port()
    sockets: list[socket.socket] = []
    for ask in several:
        made, error = kernel.bind(ask, port)
        stack.callback(made.close)
        plan = route.plan_bind(table, APP, wanted(ask, port), RNG)
        planned = plan.error if isinstance(plan, Refuse) else 0
        # Once a SO_REUSEPORT socket is there, the kernel compares another one with the last of them only, and
        # overlooks what else is at the port (sk_reuseport_match in net/ipv4/inet_connection_sock.c).
        overlooked = ask.reuse_port and any(each.reuse_port for each in table.listeners.values())
        assume(not (overlooked and planned == errno.EADDRINUSE and error == 0))
        assert planned == error, f"{ask}: planned {errno.errorcode.get(planned)}, kernel {errno.errorcode.get(error)}"
        sockets.append(made)
        if isinstance(plan, Refuse):
            continue
        table.add_listener(plan)
        if ask.listen:
            error = listen_errno(made)
            refusal = route.plan_listen(table, plan)
            planned = refusal.error if refusal else 0
            assert planned == error, f"listen {ask}: planned {planned}, kernel {error}"
            if not refusal:
                table.mark_listening(plan.id)
    return table, sockets, port


AGAINST_KERNEL = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.root
@AGAINST_KERNEL
@given(several=st.lists(asks(), min_size=2, max_size=4))
def test_bind_and_listen_fail_as_the_kernels_do(kernel: Kernels, several: list[Ask]) -> None:
    with ExitStack() as stack:
        same_in_kernel_and_plan(kernel, several, stack)


@pytest.mark.root
@AGAINST_KERNEL
@given(several=st.lists(asks(reuse_port=True, listen=True), min_size=1, max_size=4), data=st.data())
def test_a_connect_goes_where_the_kernels_goes(kernel: Kernels, several: list[Ask], data: st.DataObject) -> None:
    """Among sockets that listen at one port the most specific one takes the connection."""
    places = [place for place in V4_PLACES + V6_PLACES if place not in FOREIGN]
    dest = ip_address(data.draw(st.sampled_from([p for p in places if "ffff" not in p])))
    with ExitStack() as stack:
        table, sockets, port = same_in_kernel_and_plan(kernel, several, stack)
        plan = route.plan_connect(table, Policy(), APP, dest, port, gateway=False)
        client = kernel.make(dest.version)
        stack.callback(client.close)
        client.settimeout(5)
        error = client.connect_ex((str(dest), port))
        if error == errno.ECONNREFUSED:
            if isinstance(plan, Reach):  # DESIGN: loopback reaches what the app has at its virtual IP, too
                assert dest.is_loopback or dest.is_unspecified
                assert all(each.ip == APP.source(each.ip.version) for each in plan.candidates)
            else:
                assert refused(plan, errno.ECONNREFUSED)
            return
        assert error == 0
        assert isinstance(plan, Reach)
        listening = [each for each in sockets if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
        took = select.select(listening, [], [], 5)[0]
        assert len(took) == 1
        name = took[0].getsockname()[0]
        with took[0].accept()[0] as accepted:
            source = ip_address(accepted.getpeername()[0])
        places_planned = {place_of(each) for each in plan.candidates}
        assert (took[0].family == socket.AF_INET6, name) in places_planned, f"{dest}: kernel {name}, {plan.candidates}"
        if isinstance(source, IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        assert plan.source == source


def place_of(listener: Listener) -> tuple[bool, str]:
    mapped = listener.family == 6 and listener.ip.version == 4
    return listener.family == 6, f"::ffff:{listener.ip}" if mapped else str(listener.ip)


# --- bind between apps


@pytest.mark.parametrize("place", ["10.1.1.1", "0.0.0.0", "127.0.0.1"])
def test_several_apps_with_one_ip_are_instances_of_one_service(world: World, place: str) -> None:
    for _ in range(3):
        world.serve(world.app(), place)


def test_exclusive_asks_for_the_kernels_rule_across_apps(world: World) -> None:
    world.serve(world.app(exclusive=True), "0.0.0.0")
    assert refused(world.bind(world.app(), "0.0.0.0"), errno.EADDRINUSE)
    assert isinstance(world.bind(world.app(), "0.0.0.0", 81), Listener)
    world.serve(world.app(), "0.0.0.0", 82)
    assert refused(world.bind(world.app(exclusive=True), "10.1.1.1", 82), errno.EADDRINUSE)


def test_apps_of_different_ips_have_port_spaces_of_their_own(world: World) -> None:
    world.serve(world.app(V4, exclusive=True), "0.0.0.0")
    world.serve(world.app(OTHER_V4, exclusive=True), "0.0.0.0")
    world.serve(world.app(V6, exclusive=True), "::")


@pytest.mark.parametrize("ip", ["10.1.1.2", "198.51.100.7", "fd00::1", "169.254.3.3", "224.0.0.1", "255.255.255.255"])
def test_an_app_binds_no_address_of_others(world: World, ip: str) -> None:
    world.app(OTHER_V4)
    assert refused(world.bind(world.app(), ip), errno.EADDRNOTAVAIL)


@given(several=st.lists(st.sampled_from(["0.0.0.0", "127.0.0.1", "10.1.1.1", "::"]), max_size=12), seed=st.integers())
def test_port_0_gets_an_ephemeral_port_that_no_sibling_has(several: list[str], seed: int) -> None:
    world, rng = World(), random.Random(seed)
    app, sibling = world.app(), world.app()
    for number, place in enumerate(several):
        ip = ip_address(place)
        plan = route.plan_bind(world.table, (app, sibling)[number % 2], BindRequest(ip.version, ip, 0), rng)
        assert isinstance(plan, Listener)
        assert plan.port in EPHEMERAL
        assert not list(world.table.at_port(V4, plan.port))
        world.table.add_listener(plan)


def test_port_0_when_none_is_left(world: World) -> None:
    app = world.app()
    for port in EPHEMERAL:
        world.table.add_listener(Listener(id=world.table.next_listener_id(), app=app, family=4, ip=V4, port=port))
    assert refused(world.bind(app, "0.0.0.0", 0), errno.EADDRINUSE)


# --- connect: where to


def test_nothing_there_is_refused(world: World) -> None:
    client, server = world.app(V4), world.app(OTHER_V4)
    for dest in (V4, OTHER_V4, "127.0.0.1", "::1", "0.0.0.0", "::"):
        assert refused(world.connect(client, dest), errno.ECONNREFUSED)
    bound = world.bind(server, "0.0.0.0")
    assert isinstance(bound, Listener)
    # Bound, and perhaps it listens already: that is for the kernel to say, on this host, gateway or not.
    for gateway in (False, True):
        plan = world.connect(client, OTHER_V4, gateway=gateway)
        assert isinstance(plan, Reach)
        assert plan.candidates == (bound,)


def test_one_that_listens_is_preferred_to_one_that_is_only_bound(world: World) -> None:
    server, sibling = world.app(), world.app()
    world.bind(server, "0.0.0.0")
    listener = world.serve(sibling, "0.0.0.0")
    for app in (server, sibling, world.app(OTHER_V4)):
        assert world.reached(app, V4) == {listener.id}


def test_a_listener_on_loopback_is_seen_by_siblings_only(world: World) -> None:
    server, sibling, stranger = world.app(), world.app(), world.app(OTHER_V4)
    listener = world.serve(server, "127.0.0.1")
    assert world.reached(server, "127.0.0.1") == {listener.id}
    assert world.reached(sibling, "127.0.0.1") == {listener.id}
    assert refused(world.connect(stranger, V4), errno.ECONNREFUSED)
    assert refused(world.connect(stranger, "127.0.0.1"), errno.ECONNREFUSED)
    assert refused(world.connect(sibling, V4), errno.ECONNREFUSED)


def test_loopback_reaches_the_apps_own_listener_first(world: World) -> None:
    one, two, three = world.app(), world.app(), world.app()
    first, second = world.serve(one, "0.0.0.0"), world.serve(two, "0.0.0.0")
    for dest in ("127.0.0.1", "10.1.1.1"):
        assert world.reached(one, dest) == {first.id}
        assert world.reached(two, dest) == {second.id}
        assert world.reached(three, dest) == {first.id, second.id}


def test_loopback_reaches_what_a_sibling_has_at_the_virtual_ip(world: World) -> None:
    server, client = world.app(), world.app()
    listener = world.serve(server, "10.1.1.1")
    assert world.reached(client, "127.0.0.1") == {listener.id}


def test_two_services_of_one_app_at_one_port_are_told_apart(world: World) -> None:
    """An admin page on loopback beside the page for everyone, as the kernel allows it."""
    app, sibling, stranger = world.app(), world.app(), world.app(OTHER_V4)
    private, public = world.serve(app, "127.0.0.1"), world.serve(app, "10.1.1.1")
    for inside in (app, sibling):
        assert world.reached(inside, "127.0.0.1") == {private.id}
        assert world.reached(inside, "10.1.1.1") == {public.id}
    assert world.reached(stranger, "10.1.1.1") == {public.id}


def test_client_only_apps_serve_themselves_only(world: World) -> None:
    app, other = world.app(None), world.app(None)
    listener = world.serve(app, "127.0.0.1")
    world.serve(app, "0.0.0.0", 81)
    assert world.reached(app, "127.0.0.1") == {listener.id}
    for dest, port in (("127.0.0.1", 80), (app.ip, 81)):
        plan = world.connect(other, dest, port, gateway=True)
        assert isinstance(plan, Refuse)


def test_every_instance_is_a_candidate_but_those_that_drain(world: World) -> None:
    client = world.app(OTHER_V4)
    served = [world.serve(world.app(), "0.0.0.0") for _ in range(3)]
    assert world.reached(client, V4) == {each.id for each in served}
    world.table.draining = {served[0].app.id, served[2].app.id}
    assert world.reached(client, V4) == {served[1].id}
    world.table.draining.add(served[1].app.id)
    plan = world.connect(client, V4)
    assert isinstance(plan, Refuse)
    assert plan.reason == "what serves 10.1.1.1 port 80 is being drained"
    # its own connects go on, a sibling's are new ones
    assert world.reached(served[1].app, "127.0.0.1") == {served[1].id}
    assert refused(world.connect(world.app(), "127.0.0.1"), errno.ECONNREFUSED)


def test_groups(world: World) -> None:
    """Figure 1 of the paper, and no way past it by the virtual IP that they share."""
    web = world.app(tags=(("grp", "1"),))
    middle = world.app(tags=(("grp", "1"), ("grp", "2")))
    db = world.app(tags=(("grp", "2"),))
    on_middle, on_db = world.serve(middle, "0.0.0.0", 8080), world.serve(db, "0.0.0.0", 5432)
    for dest in ("127.0.0.1", V4):
        assert world.reached(web, dest, 8080) == {on_middle.id}
        assert world.reached(middle, dest, 5432) == {on_db.id}
        assert refused(world.connect(web, dest, 5432), errno.ECONNREFUSED, denied=True)


def test_only_instances_that_policy_allows_are_candidates(world: World) -> None:
    client = world.app(OTHER_V4, tags=(("grp", "a"),))
    world.serve(world.app(tags=(("grp", "b"),)), "0.0.0.0")
    open_to_all, mine = world.serve(world.app(), "0.0.0.0"), world.serve(world.app(tags=(("grp", "a"),)), "0.0.0.0")
    assert world.reached(client, V4) == {open_to_all.id, mine.id}


def test_what_policy_denies_names_the_rule(world: World) -> None:
    rule = Rule("no-db", Action.DENY, server=Selector(names=("db",)), ports=(range(80, 81),))
    world.policy = Policy((rule,))
    client, db = world.app(OTHER_V4), world.app(name="db")
    served = world.serve(db, "0.0.0.0"), world.serve(db, "0.0.0.0", 81)
    plan = world.connect(client, V4)
    assert isinstance(plan, Refuse)
    assert (plan.denied, plan.rule, [each.listener.id for each in plan.judged]) == (True, "no-db", [served[0].id])
    assert "no-db" in plan.reason
    assert world.reached(client, V4, 81) == {served[1].id}
    assert world.reached(db, V4) == {served[0].id}, "it reaches itself"
    nothing = world.connect(client, V4, 82)
    assert isinstance(nothing, Refuse)
    assert (nothing.denied, nothing.rule) == (False, None)


def test_a_plan_says_of_every_instance_whether_it_is_allowed(world: World) -> None:
    rules = Rule("no", Action.DENY, server=Selector(tags=(("v", "1"),))), Rule("look", Action.AUDIT)
    world.policy = Policy(rules)
    servers = [world.serve(world.app(tags=(("v", version),)), "0.0.0.0") for version in "12"]
    plan = world.connect(world.app(OTHER_V4), V4)
    assert isinstance(plan, Reach)
    assert [each.id for each in plan.candidates] == [servers[1].id]
    assert [(each.listener.id, each.verdict.rule) for each in plan.judged] == [
        (servers[0].id, "no"),
        (servers[1].id, "look"),
    ]
    assert plan.audited


@pytest.mark.parametrize("gateway", [True, False])
def test_outside(world: World, gateway: bool) -> None:
    plan = world.connect(world.app(), OUTSIDE, 443, gateway=gateway)
    assert plan == Egress(OUTSIDE, 443) if gateway else refused(plan, errno.ENETUNREACH)


@pytest.mark.parametrize("dest", ["224.0.0.1", "169.254.1.1", "fe80::1", "ff02::1", "255.255.255.255"])
def test_what_can_t_be_connected_to_never_leaves(world: World, dest: str) -> None:
    assert refused(world.connect(world.app(), dest, gateway=True), errno.ENETUNREACH)


@pytest.mark.parametrize("dest", ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::"])
def test_loopback_never_leaves(world: World, dest: str) -> None:
    """It would be the gateway's own loopback."""
    assert refused(world.connect(world.app(), dest, gateway=True), errno.ECONNREFUSED)


def test_a_service_that_has_gone_refuses(world: World) -> None:
    client, server = world.app(V4), world.app(OTHER_V4)
    world.table.remove_app(server.id)
    assert refused(world.connect(client, OTHER_V4, gateway=True), errno.ECONNREFUSED)


def test_dns_is_for_the_socket_in_the_apps_namespace(world: World) -> None:
    """Whatever server resolv.conf names; unless the app itself serves there."""
    app = world.app()
    for dest in ("127.0.0.53", "::1", "8.8.8.8", "10.9.9.9"):
        assert world.connect(app, dest, 53, gateway=True) == Kernel()
    own = world.serve(app, "127.0.0.1", 53)
    assert world.reached(app, "127.0.0.1", 53) == {own.id}
    plain = world.app(OTHER_V4, netns=False)
    assert world.connect(plain, "8.8.8.8", 53, gateway=True) == Egress(ip_address("8.8.8.8"), 53)
    assert refused(world.connect(plain, "127.0.0.53", 53), errno.ECONNREFUSED)


# --- connect: where from

IPS = st.sampled_from([V4, OTHER_V4, V6, *map(ip_address, ("127.0.0.1", "::1", "0.0.0.0", "::", "198.51.100.7"))])


@given(bound_ip=IPS, bound_port=st.integers(0, 65535), dest=IPS, client_ip=st.sampled_from([V4, V6, None]))
def test_no_one_shows_an_address_that_is_not_theirs(
    bound_ip: Address, bound_port: int, dest: Address, client_ip: Address | None
) -> None:
    """A server trusts what getpeername says; and what a client says it has bound is only its word."""
    world = World()
    for ip in (V4, OTHER_V4, V6):
        world.serve(world.app(ip), "::", 80, v6only=False)
    client = world.app(client_ip)
    plan = world.connect(client, dest, bound=(bound_ip, bound_port))
    if isinstance(plan, Reach):
        inside = dest.is_loopback or dest.is_unspecified or dest in (client.ip, client.alias)
        assert plan.source in (client.ip, client.alias) or (inside and plan.source.is_loopback)
        assert plan.source.version == dest.version
        assert plan.port == bound_port


@pytest.mark.parametrize("dest", [OTHER_V4, "10.1.1.1"])
def test_a_client_bound_to_loopback_gets_no_further(world: World, dest: Address | str) -> None:
    """The kernel: EINVAL towards another host (ip_route_output_key). Towards its own address it is the source."""
    client = world.app()
    world.serve(world.app(OTHER_V4), "0.0.0.0")
    world.serve(client, "0.0.0.0")
    plan = world.connect(client, dest, bound=(ip_address("127.0.0.1"), 0))
    if dest == OTHER_V4:
        assert refused(plan, errno.EINVAL)
    else:
        assert isinstance(plan, Reach)


def test_the_source_is_of_the_destinations_version(world: World) -> None:
    server, client = world.app(V4), world.app(V6)
    world.serve(server, "0.0.0.0")
    plan = world.connect(client, V4)
    assert isinstance(plan, Reach)
    assert plan.source == client.alias
    plan = world.connect(world.app(OTHER_V4), V4)
    assert isinstance(plan, Reach)
    assert (plan.source, plan.port) == (OTHER_V4, 0)


@pytest.mark.parametrize(
    ("dest", "source"),
    [("127.0.0.1", "127.0.0.1"), ("127.5.5.5", "127.0.0.1"), ("10.1.1.1", "10.1.1.1"), ("::1", "::1"), ("::", "::1")],
)
def test_inside_the_source_is_as_the_kernel_picks_it(world: World, dest: str, source: str) -> None:
    world.serve(world.app(), "::")
    plan = world.connect(world.app(), dest)
    assert isinstance(plan, Reach)
    assert plan.source == ip_address(source)


@pytest.mark.parametrize("bound", [("0.0.0.0", 4000), ("10.1.1.2", 4000), ("10.1.1.2", 0)])
def test_what_the_client_has_bound_is_its_source(world: World, bound: tuple[str, int]) -> None:
    world.serve(world.app(V4), "0.0.0.0")
    plan = world.connect(world.app(OTHER_V4), V4, bound=(ip_address(bound[0]), bound[1]))
    assert isinstance(plan, Reach)
    assert (plan.source, plan.port) == (OTHER_V4, bound[1])


@given(st.lists(st.tuples(asks(), st.sampled_from([V4, OTHER_V4])), max_size=8), IPS)
def test_a_plan_is_always_one_that_can_be_carried_out(several: list[tuple[Ask, Address]], dest: Address) -> None:
    world = World()
    apps = {V4: world.app(V4), OTHER_V4: world.app(OTHER_V4)}
    for ask, ip in several:
        plan = route.plan_bind(world.table, apps[ip], wanted(ask, 80), RNG)
        if isinstance(plan, Listener):
            world.table.add_listener(plan)
            if ask.listen and route.plan_listen(world.table, plan) is None:
                world.table.mark_listening(plan.id)
    where = world.connect(apps[V4], dest)
    if isinstance(where, Reach):
        assert where.candidates
        assert len({world.table.listeners[each.id].listening for each in where.candidates}) == 1
        assert len({each.id for each in where.candidates}) == len(where.candidates)
        assert all(dest.version in each.versions for each in where.candidates)
    else:
        assert isinstance(where, Refuse)


# --- policy on the way out


def test_who_may_leave_by_the_name_that_was_found(world: World) -> None:
    app = world.app(name="web")
    rule = Rule(
        "there", Action.ALLOW, server=Selector(names=("*.example.com",), cidrs=(ip_network("198.51.100.0/24"),))
    )
    world.policy = Policy((rule,), egress=False)
    denied = world.connect(app, OUTSIDE, 443, gateway=True)
    assert isinstance(denied, Refuse)
    assert (denied.error, denied.rule, denied.denied) == (errno.ECONNREFUSED, "egress", True)
    names = ("www.example.com",)
    plan = route.plan_connect(world.table, world.policy, app, OUTSIDE, 443, gateway=True, names=names)
    assert plan == Egress(OUTSIDE, 443, (), names, Verdict(True, "there"))


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.1.1.2", "0.0.0.0", "::1"])
def test_a_name_for_an_address_inside_opens_nothing(world: World, ip: str) -> None:
    """evil.example.com stands for an app that policy denies, or for the client's own loopback."""
    client, db = world.app(name="web"), world.app(OTHER_V4, tags=(("grp", "2"),))
    world.serve(db, "0.0.0.0", 80)
    world.policy = Policy((Rule("there", Action.ALLOW, server=Selector(names=("*.example.com",))),))
    plan = route.plan_connect(
        world.table, world.policy, client, ip_address(ip), 80, gateway=True, names=("evil.example.com",)
    )
    assert isinstance(plan, Refuse)
    assert plan.error == errno.ECONNREFUSED
