"""Names of apps where no DNS socket of a namespace is asked (shim/resolve.c); more in e2e/test_name_services.py."""

from __future__ import annotations

import sys

from tests.harness import Switch
from tests.shim.cases import Build, each_compiler


@each_compiler
def test_gethostbyaddr(switch: Switch, build: Build, compiler: str) -> None:
    """127.0.0.1 is no app's: libc answers."""
    names = {"10.9.9.1": "web.appswitch.local", "fd00::9": "six.appswitch.local", "127.0.0.1": "localhost"}
    serve = "import socket; socket.create_server(('', 80)).accept()"
    switch.spawn("--name", "web", "--ip", "10.9.9.1", sys.executable, "-c", serve)
    switch.spawn("--name", "six", "--ip", "fd00::9", sys.executable, "-c", serve)
    switch.wait_for("web:80", "six:80")
    said = switch.run("--no-netns", str(build("by_address", compiler=compiler)), *names).stdout.splitlines()
    calls = ("gethostbyaddr", "gethostbyaddr_r")
    assert said == [f"{call} {ip} {name}" for ip, name in names.items() for call in calls]
