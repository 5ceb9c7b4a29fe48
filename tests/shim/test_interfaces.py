"""In its namespace an app's addresses are lo's: whoever asks for those of the host finds them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch
from tests.shim.cases import Build, each_compiler

V4, V4_ALIAS = "10.9.9.1", "fd61:7073:7769::a09:901"
V6 = "fd00::9"


@each_compiler
def test_by_c(switch: Switch, build: Build, compiler: str) -> None:
    program = str(build("interfaces", compiler=compiler))
    said = switch.run("--ip", V4, program).stdout.splitlines()
    listed = [line.removeprefix("getifaddrs lo ") for line in said if line.startswith("getifaddrs")]
    assert sorted(listed) == sorted(["127.0.0.1", V4, "::1", V4_ALIAS])
    assert [line for line in said if line.startswith("SIOCGIFCONF")] == [
        "SIOCGIFCONF lo 127.0.0.1",
        f"SIOCGIFCONF lo {V4}",
    ]
    assert said[-1] == "SIOCGIFADDR lo 127.0.0.1"
    said = switch.run("--ip", V6, program).stdout.splitlines()
    assert f"getifaddrs lo {V6}" in said


@pytest.mark.program("node")
def test_by_node(switch: Switch) -> None:
    code = "console.log(JSON.stringify(Object.values(os.networkInterfaces()).flat().map(each => each.address)))"
    for ip in (V4, V6):
        assert ip in json.loads(switch.run("--ip", ip, "node", "-e", f"const os = require('os'); {code}").stdout)


JAVA = """
import java.net.*;
import java.util.*;
public class Interfaces {
    public static void main(String[] arguments) throws Exception {
        for (NetworkInterface each : Collections.list(NetworkInterface.getNetworkInterfaces()))
            for (InetAddress address : Collections.list(each.getInetAddresses()))
                System.out.println(address.getHostAddress().split("%")[0]);
    }
}
"""


@pytest.mark.program("java")
def test_by_java(switch: Switch, tmp_path: Path) -> None:
    program = tmp_path / "Interfaces.java"
    program.write_text(JAVA)
    for ip, shown in ((V4, V4), (V6, "fd00:0:0:0:0:0:0:9")):
        said = switch.run("--ip", ip, "java", str(program), timeout=3 * PATIENCE).stdout.splitlines()
        assert shown in said
