"""What whoever starts an app is told of its ports, as the gateways answer."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import cast

import pytest
import trio
from attrs import define

from appswitch.edge.exposing import Exposing
from appswitch.edge.nodes import Nodes
from appswitch.edge.peers import Peers
from appswitch.errors import AppSwitchError
from appswitch.model import App, Expose, Exposure, GatewayRecord
from appswitch.wire import records
from appswitch.wire.peer import Answer, OpenPorts, PortsOpened, Pulled, Request

WEB = ip_address("10.1.1.1")
APP = App(3, WEB, "a", "web", exposes=(Expose(80, 8080),))


def at(address: str, port: int = 8080, asked: int | None = 8080) -> bytes:
    return records.encode(GatewayRecord(Exposure(WEB, 80, asked), ((ip_address(address), port),)))


def failed(error: str) -> bytes:
    return records.encode(GatewayRecord(Exposure(WEB, 80, 8080), error=error))


@define
class World:
    """What each gateway answers, one thing after the other."""

    answers: dict[str, list[bytes | OSError | Answer]]

    def gateways(self) -> list[str]:
        return list(self.answers)

    async def ask(self, node: str, request: Request, _patience: float) -> Answer:
        assert request == OpenPorts(3)
        if not self.answers[node]:
            await trio.sleep_forever()
        answer = self.answers[node].pop(0)
        if isinstance(answer, OSError):
            raise answer
        return PortsOpened([answer]) if isinstance(answer, bytes) else answer

    async def open(self, app: App = APP) -> list[str]:
        return await Exposing(cast(Nodes, self), peers=cast(Peers, self)).open(app)


async def test_where_all_gateways_have_opened_it() -> None:
    world = World({"g2": [at("2001:db8::1")], "g1": [at("192.0.2.1")]})
    assert await world.open() == ["port 80 is exposed at 192.0.2.1:8080 and [2001:db8::1]:8080"]


async def test_each_port_that_is_exposed() -> None:
    app = App(3, WEB, "a", "web", exposes=(Expose(80, 8080), Expose(80), Expose(443, 8443, "g9")))
    both = PortsOpened([at("192.0.2.1"), at("192.0.2.1", 20001, None)])
    assert await World({"g1": [both]}).open(app) == [
        "port 80 is exposed at 192.0.2.1:8080",
        "port 80 is exposed at 192.0.2.1:20001",
        "warning: no gateway g9 is there yet: port 443 is exposed once one is",
    ]


async def test_one_that_cannot_have_the_port() -> None:
    with pytest.raises(AppSwitchError, match="gateway g2 says: port 8080 is taken") as caught:
        await World({"g1": [at("192.0.2.1")], "g2": [failed("port 8080 is taken by another program")]}).open()
    assert caught.value.reason == "port-taken"
    assert caught.value.hint


async def test_no_gateway() -> None:
    assert await World({}).open() == ["warning: no gateway is there yet: port 80 is exposed once one is"]


async def test_one_that_has_not_heard_of_the_app(autojump_clock: trio.testing.MockClock) -> None:
    unknown = [OSError(errno.EAGAIN, "app a/3 isn't known there") for _ in range(3)]
    assert await World({"g1": [*unknown, at("192.0.2.1")]}).open() == ["port 80 is exposed at 192.0.2.1:8080"]


@pytest.mark.parametrize("wrong", [OSError(errno.EHOSTUNREACH, "no way"), b"\xc1", Pulled(b""), None])
async def test_one_that_does_not_answer(
    wrong: bytes | OSError | Answer | None, autojump_clock: trio.testing.MockClock
) -> None:
    silent = "warning: gateway g1 doesn't answer: it opens its ports once it does"
    assert await World({"g1": [wrong] if wrong else []}).open() == [silent]
    both = World({"g1": [wrong] if wrong else [], "g2": [at("192.0.2.1")]})
    assert await both.open() == ["port 80 is exposed at 192.0.2.1:8080", silent]
