"""An app's addresses are lo's, in its namespace and without one: whoever asks for those of the host finds them."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path
from tests.harness import PATIENCE, Switch
from tests.shim.cases import Build, each_compiler

V4, V4_ALIAS = "10.9.9.1", "fd61:7073:7769::a09:901"
V6 = "fd00::9"


ISOLATION = pytest.mark.parametrize("isolation", [(), ("--no-netns",)], ids=["netns", "no netns"])


@each_compiler
def test_by_c(switch: Switch, build: Build, compiler: str) -> None:
    """With a namespace the kernel says it, without one the shim: the same."""
    program = str(build("interfaces", compiler=compiler))
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    for ip, alias in ((V4, V4_ALIAS), ("fd00::9", "")):
        said = switch.run("--ip", ip, program, *others).stdout.splitlines()
        without = switch.run("--ip", ip, "--no-netns", program, *others).stdout.splitlines()
        assert sorted(without) == sorted(said)
        for each in filter(None, (ip, alias)):
            mask = "ffff:" * 7 + "ffff" if ":" in each else "255.255.255.255"
            assert f"getifaddrs lo {each} mask {mask} flags 10049" in said
    assert "SIOCGIFADDR lo 127.0.0.1" in said
    assert all(f"SIOCGIFADDR {name}: errno {errno.ENODEV}" in said for name in others)


@each_compiler
def test_preload_alone(switch: Switch, build: Build, compiler: str) -> None:
    environment = {**switch.environment, "LD_PRELOAD": str(shim_path()), "APPSWITCH_IP": V4}
    program = build("interfaces", compiler=compiler)
    said = subprocess.run(
        [program], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout
    assert [line.split()[2] for line in said.splitlines() if line.startswith("SIOCGIFCONF")] == ["127.0.0.1", V4]


@each_compiler
def test_without_a_trap_handler_it_is_an_error(tmp_path: Path, build: Build, compiler: str) -> None:
    """Not the host's addresses, which lead nowhere."""
    environment = {"LD_PRELOAD": str(shim_path()), "APPSWITCH_SOCKET": str(tmp_path / "none")}
    program = build("interfaces", compiler=compiler)
    done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert os.strerror(errno.ENETDOWN) in done.stdout


@ISOLATION
@pytest.mark.program("node")
def test_by_node(switch: Switch, isolation: tuple[str, ...]) -> None:
    code = "console.log(JSON.stringify(Object.values(os.networkInterfaces()).flat().map(each => each.address)))"
    node = ["node", "-e", f"const os = require('os'); {code}"]
    for ip in (V4, V6):
        shown = json.loads(switch.run("--ip", ip, *isolation, *node).stdout)
        assert ip in shown
        assert len(shown) == 4, "127.0.0.1, ::1, the app's address and its alias"


JAVA = """
import java.net.*;
import java.util.*;
public class Interfaces {
    public static void main(String[] arguments) throws Exception {
        for (NetworkInterface each : Collections.list(NetworkInterface.getNetworkInterfaces()))
            for (InetAddress address : Collections.list(each.getInetAddresses()))
                System.out.println(each.getName() + " " + address.getHostAddress().split("%")[0]);
    }
}
"""


@pytest.mark.program("java")
def test_by_java(switch: Switch, tmp_path: Path) -> None:
    program = tmp_path / "Interfaces.java"
    program.write_text(JAVA)
    for ip, shown in ((V4, V4), (V6, "fd00:0:0:0:0:0:0:9")):
        said = switch.run("--ip", ip, "java", str(program), timeout=3 * PATIENCE).stdout.splitlines()
        assert f"lo {shown}" in said
    without = switch.run("--ip", V4, "--no-netns", "java", str(program), timeout=3 * PATIENCE).stdout.splitlines()
    assert {"lo 127.0.0.1", f"lo {V4}"} == {line for line in without if ":" not in line}
