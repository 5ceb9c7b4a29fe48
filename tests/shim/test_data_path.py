"""Once connected, AppSwitch is out of the data path: strace sees the program's own calls and no other."""

from __future__ import annotations

import re

import pytest

from tests.harness import Switch
from tests.shim.cases import VIP, Build, each_compiler

CALL = re.compile(r"^(?:\d+ +)?(\w+)\((\d+)")


@pytest.mark.program("strace")
@each_compiler
def test_data_goes_straight_to_the_kernel(switch: Switch, build: Build, compiler: str) -> None:
    name = f"answer-{compiler.partition('-')[0]}"
    ip = {"answer-gcc": "10.77.1.1", "answer-musl": "10.77.1.2"}[name]
    switch.spawn("--name", name, "--ip", ip, str(build("answer", compiler=compiler)), "0.0.0.0", "80")
    switch.wait_for(f"{name}:80")
    trace = switch.directory / f"trace-{compiler}"
    command = ["strace", "-f", "-o", str(trace), str(build("transfer", compiler=compiler)), ip, "80"]
    done = switch.run("--ip", VIP, *command)
    assert done.stdout == "ok\n"
    lines = trace.read_text().splitlines()
    connected = max(i for i, line in enumerate(lines) if re.search(r"\b(dup3|connect)\(", line))
    calls: list[tuple[str, int]] = []
    for line in lines[connected + 1 :]:
        found = CALL.match(line)
        if found and not calls and found[1] not in ("write", "writev"):
            continue  # the end of connect
        if found:
            calls.append((found[1], int(found[2])))
        if found and found[1] == "close" and calls[0][1] == int(found[2]):
            break
    fd = calls[0][1]
    assert [fd for _, fd in calls] == [fd] * len(calls)
    # send and recv are sendto and recvfrom to the kernel
    assert [name for name, _ in calls] == ["write", "sendto", "writev", "recvfrom", "read"] * 20 + ["close"]
