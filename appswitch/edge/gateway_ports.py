"""The ports of a gateway: what apps expose is what is open here, at once, and no longer than they do.

The table of services says what there is to open (core/exposing.py); after each of its changes it is looked at anew.
From an app's start on the port is its service's: bound, and as long as no instance takes connections, a client is
refused by the kernel, as by a program that doesn't listen. What can't be opened is tried again now and then. What is
open, where, and what isn't, and why, is written to the table, for all nodes to know.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import socket
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import structlog
import trio
from attrs import define, field

from appswitch.core.exposing import Gateway, choice_of_ports
from appswitch.edge.apps import Apps
from appswitch.edge.doors import Doors
from appswitch.edge.express import Express
from appswitch.edge.gate import Gate, reset
from appswitch.edge.ingress import Ingress
from appswitch.edge.trouble import Trouble
from appswitch.errors import AppSwitchError
from appswitch.host.confined import confine_listener
from appswitch.model import GATEWAY_KEY, Address, App, Exposure, GatewayRecord

BACKLOG = 4096
AT_ONCE = 128  # connections of one port that are on their way to an instance; further ones wait in the kernel's queue
RETRY_EVERY = 2.0  # seconds
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

ANYWHERE: tuple[Address, ...] = (IPv4Address("0.0.0.0"), IPv6Address("::"))
ELSEWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses that nobody has (RFC 5737, RFC 3849): where the way to them begins, clients outside find us."""

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

log = structlog.get_logger()


class TakenError(Exception):
    """A port can't be had; the text says why."""


@define
class Port:
    """What is open for an exposure: a socket for each address. accepting: those that take connections."""

    key: str
    number: int
    sockets: dict[Address, socket.socket]
    accepting: dict[Address, trio.CancelScope] = field(factory=dict)


@define
class GatewayPorts:
    """Those of this node. addresses: where it listens."""

    gateway: Gateway
    addresses: tuple[Address, ...]
    apps: Apps
    ingress: Ingress
    gate: Gate
    express: Express | None = None
    doors: Doors | None = None
    _open: dict[Exposure, Port] = field(factory=dict)
    _failed: dict[Exposure, str] = field(factory=dict)
    """The keys of their records."""
    _try_again: float = 0.0
    _is_short: bool = False
    """A port couldn't begin, or cease, to take connections, for want of descriptors or memory."""
    _trouble: Trouble = field(factory=lambda: Trouble("ports can't be opened, or closed, in full: tried again"))
    _keys: Iterator[int] = field(factory=itertools.count)
    _nursery: trio.Nursery = field(init=False)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps open what is to be, for ever."""
        async with trio.open_nursery() as self._nursery:
            try:
                self._nursery.start_soon(self.gate.keep_counting)
                if self.express is not None:
                    self._nursery.start_soon(self.express.run)
                if self.doors is not None:
                    await self._nursery.start(self.doors.run)
                task_status.started()
                while True:
                    self.settle()
                    with trio.move_on_at(self._try_again if self._failed or self._is_short else math.inf):
                        await self.apps.changed()
            finally:
                for port in self._open.values():
                    self._shut(port)

    def numbers(self) -> set[int]:
        """Of all that are open."""
        return {port.number for port in self._open.values()}

    def records_for(self, app: App) -> list[GatewayRecord]:
        """What has become of all that `app` exposes here, by now."""
        self.settle(app)
        records = self.apps.table.gateways.get(self.gateway.node.name, {})
        wanted = {Exposure(app.ip, each.port, each.gateway_port) for each in app.exposes if self.gateway.is_meant(each)}
        return [each for each in records.values() if each.exposure in wanted]

    def settle(self, app: App | None = None) -> None:
        """Opens and closes what is to be. app: one whose ports are tried again at once."""
        wanted = dict(self.gateway.exposures(self.apps.table))
        before = dict(self.apps.table.gateways.get(self.gateway.node.name, {}))
        for exposure in [each for each in self._open if wanted.get(each, each) is not None]:
            self._close(exposure)
        for exposure in self._failed.keys() - wanted.keys():
            self._put(self._failed.pop(exposure), None)
        now = trio.current_time()
        again = now >= self._try_again
        for exposure, rival in wanted.items():
            fresh = exposure not in self._open and exposure not in self._failed
            if fresh or (exposure in self._failed and (again or (app is not None and app.ip == exposure.ip))):
                self._try(exposure, rival)
        if again:
            self._try_again = now + RETRY_EVERY
        self._is_short = False
        for exposure, port in list(self._open.items()):
            try:
                self._accept_where_served(exposure, port)
            except OSError as error:
                if error.errno in SHORT:  # it stays ours, as it is
                    self._try_again = now + RETRY_EVERY
                    self._is_short = True
                    self._trouble.note(error.errno)
                else:  # another program has bound it, too, and was quicker
                    self._close(exposure)
                    self._try(exposure, None)
        if self.apps.table.gateways.get(self.gateway.node.name, {}) != before:
            self.apps.note_change()

    def _try(self, exposure: Exposure, rival: Exposure | None) -> None:
        key = self._failed.pop(exposure, None) or f"{GATEWAY_KEY}{next(self._keys)}"
        try:
            port = self._bind(exposure, rival, key)
        except TakenError as error:
            record = GatewayRecord(exposure, error=str(error))
            self._failed[exposure] = key
            if self.apps.table.record(key) != record:
                log.warning("a port can't be opened", ip=str(exposure.ip), port=exposure.port, reason=str(error))
        else:
            self._open[exposure] = port
            record = GatewayRecord(exposure, tuple((self._shown(each), port.number) for each in port.sockets))
            log.info("exposed", ip=str(exposure.ip), port=exposure.port, at=[f"{ip}" for ip, _ in record.places],
                     gateway_port=port.number)  # fmt: skip
        self._put(key, record)

    def _bind(self, exposure: Exposure, rival: Exposure | None, key: str) -> Port:
        """TakenError."""
        ours = {port.number: owner for owner, port in self._open.items()}
        wanted = exposure.gateway_port
        if wanted is not None:
            rival = rival or ours.get(wanted)
            if rival is not None:
                raise TakenError(f"port {wanted} is taken by {rival.ip} port {rival.port}")
            return Port(key, wanted, self._bind_all(wanted))
        for number in choice_of_ports(exposure):
            if number not in ours:
                try:
                    return Port(key, number, self._bind_all(number))
                except TakenError:
                    pass
        raise TakenError("no port is free")

    def _bind_all(self, port: int) -> dict[Address, socket.socket]:
        bound: dict[Address, socket.socket] = {}
        try:
            for address in self.addresses:
                bound[address] = bind(address, port)
        except OSError as error:
            for each in bound.values():
                each.close()
            raise TakenError(_why(error, address, port)) from None
        return bound

    def _close(self, exposure: Exposure) -> None:
        port = self._open.pop(exposure)
        self._shut(port)
        self._put(port.key, None)
        log.info("no longer exposed", ip=str(exposure.ip), port=exposure.port, gateway_port=port.number)

    def _shut(self, port: Port) -> None:
        for address in list(port.accepting):
            self._stop_accepting(port, address)
        for each in port.sockets.values():
            each.close()

    def _stop_accepting(self, port: Port, address: Address) -> None:
        """From here on nobody is let in; the relay may have the socket still."""
        port.accepting.pop(address).cancel()
        if self.express is not None:
            self.express.leave(port.sockets[address])
        if self.doors is not None:
            self.doors.forget(port.sockets[address])
        port.sockets[address].shutdown(socket.SHUT_RDWR)

    def _put(self, key: str, record: GatewayRecord | None) -> None:
        self.apps.table.put_gateway(self.gateway.node.name, key, record)

    def _accept_where_served(self, exposure: Exposure, port: Port) -> None:
        """OSError: the port is ours no longer."""
        for address in port.sockets:
            served = bool(self.gateway.instances(self.apps.table, exposure, address.version))
            if served and address not in port.accepting:
                self._accept(exposure, port, address)
            elif not served and address in port.accepting:
                self._refuse(port, address)

    def _accept(self, exposure: Exposure, port: Port, address: Address) -> None:
        confine_listener(port.sockets[address])
        port.sockets[address].listen(BACKLOG)
        scope = port.accepting[address] = trio.CancelScope()
        self._nursery.start_soon(self._keep_accepting, exposure, port.sockets[address], scope)

    def _refuse(self, port: Port, address: Address) -> None:
        """From now on the kernel does: another socket takes the place of the one that listens."""
        fresh = new_socket(address)  # there mayn't be a descriptor for it
        self._stop_accepting(port, address)
        with port.sockets[address]:
            port.sockets[address] = fresh
            fresh.bind((str(address), port.number))

    async def _keep_accepting(self, exposure: Exposure, listening: socket.socket, scope: trio.CancelScope) -> None:
        room = trio.Semaphore(AT_ONCE)

        async def admit(accepted: socket.socket) -> None:
            with accepted:
                try:
                    if await self.gate.has_said_something(accepted):
                        async with room:
                            await self.ingress.admit(accepted, exposure)
                    else:
                        reset(accepted)
                except Exception:  # a fault of ours: this connection ends, the others go on
                    log.exception("a client wasn't let in")

        with scope:
            async with trio.open_nursery() as nursery:
                while True:
                    for accepted in await self._accept_some(listening, exposure):
                        nursery.start_soon(admit, accepted)
                    async with room:  # they have their turn first
                        pass

    async def _accept_some(self, listening: socket.socket, exposure: Exposure) -> list[socket.socket]:
        """Connections that are still to be brought to an instance."""
        if self.express is not None:
            await trio.lowlevel.checkpoint_if_cancelled()  # then it is closed
            try:
                left = await self.express.hand_over(listening, exposure)
            except OSError as error:
                log.debug("connections can't be accepted", reason=error.strerror)  # the gate says it, if it stays so
                left = None
            if left is not None:
                return left
        if self.doors is not None:
            await trio.lowlevel.checkpoint_if_cancelled()
            left = await self.doors.hand_over(listening, exposure)
            if left is not None:
                return left
        return [await self.gate.accept(listening)]

    def _shown(self, address: Address) -> Address:
        """Where clients find it."""
        if not address.is_unspecified:
            return address
        try:
            with socket.socket(FAMILIES[address.version], socket.SOCK_DGRAM) as unsent:
                unsent.connect((ELSEWHERE[address.version], 9))  # sends nothing, but chooses a route
                return ip_address(unsent.getsockname()[0])
        except OSError:  # no route, or no descriptor
            own = self.gateway.node.address
            return ip_address(own) if own and ip_address(own).version == address.version else address


def bind(address: Address, port: int) -> socket.socket:
    """A non-blocking TCP socket. OSError. Connections that were accepted here and go on are in nobody's way."""
    bound = new_socket(address)
    try:
        bound.bind((str(address), port))
    except BaseException:
        bound.close()
        raise
    return bound


def new_socket(address: Address) -> socket.socket:
    """To be bound there."""
    made = socket.socket(FAMILIES[address.version], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


class OwnAddresses:
    """Those of our host, which come and go. Where there is no descriptor to find out with, what was true last holds."""

    def __init__(self) -> None:
        self._known: set[Address] = set()

    def __call__(self, address: Address) -> bool:
        try:
            bind(address, 0).close()
        except OSError as error:
            if error.errno not in SHORT:
                self._known.discard(address)
        else:
            self._known.add(address)
        return address in self._known


def choose_addresses(given: Iterable[str]) -> tuple[Address, ...]:
    """Where a gateway listens: `--gateway-bind`, by default everywhere. AppSwitchError `bad-gateway-bind`."""
    addresses = tuple(dict.fromkeys(map(_read_address, given)))
    is_own = OwnAddresses()
    for each in addresses:
        if not is_own(each):
            raise AppSwitchError("bad-gateway-bind", f"{each} is no address of this host", "`ip address` lists them")
    return addresses or tuple(each for each in ANYWHERE if is_own(each))


def _read_address(text: str) -> Address:
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise AppSwitchError(
            "bad-gateway-bind", f"{text!r} is not an IP address", "one of this host's: --gateway-bind 10.0.0.1"
        ) from None


def _why(error: OSError, address: Address, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is taken by another program"
        case errno.EACCES:
            return f"port {port} is for root only"
        case errno.EADDRNOTAVAIL:
            return f"{address} is no address of this host any more"
    return f"port {port} of {address}: {os.strerror(error.errno or errno.EIO)}"
