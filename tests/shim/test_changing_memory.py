"""Arguments that another thread changes during the call: what is checked is what is used."""

from __future__ import annotations

import pytest

from tests.harness import Switch
from tests.shim.cases import Build

pytestmark = pytest.mark.usefixtures("way")
TURNS = 500


@pytest.fixture(scope="module")
def heralds(switch: Switch, build: Build) -> None:
    """Of three servers the third may not be reached."""
    herald = str(build("herald"))
    for number, tags in ((1, []), (2, []), (3, ["--tag", "grp=others"])):
        ip = f"10.77.5.{number}"
        switch.spawn("--ip", ip, "--name", f"herald{number}", *tags, herald, ip, "80")
        switch.wait_for(f"herald{number}:80")


@pytest.mark.usefixtures("heralds")
@pytest.mark.parametrize("kind", ["", "-static"], ids=["dynamic", "static"])
@pytest.mark.parametrize("how", ["tcp", "sendto", "sendmsg"])
def test_an_address(switch: Switch, build: Build, how: str, kind: str) -> None:
    """To the client, each server is what it says itself to be."""
    flipper = str(build("flipper", *filter(None, [kind])))

    def reached(other: str) -> list[int]:
        done = switch.run("--ip", "10.77.5.9", flipper, how, "10.77.5.1", other, "80", str(TURNS))
        return [int(count) for count in done.stdout.split()]

    first, second, refused = reached("10.77.5.2")
    assert first > 0
    assert second > 0
    assert refused == 0
    first, denied, refused = reached("10.77.5.3")
    assert first > 0
    assert denied == 0
    assert refused > 0
