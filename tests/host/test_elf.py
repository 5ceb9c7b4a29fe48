"""What kind of program a file is: can a library be preloaded into it?"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.host.elf import NOT_RUN, find_obstacle

MACHINE = {"x86_64": 62, "aarch64": 183}[os.uname().machine]
GO_NOTE = struct.pack("<III", 4, 3, 4) + b"Go\0\0abc\0"


def elf(*segments: int | tuple[int, bytes], size: int = 56, machine: int = MACHINE) -> bytes:
    """A 64-bit little-endian ELF file with these program header types, or (type, content)s (elf(5))."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, size, len(segments), 64, 0, 0)
    table, contents = b"", b""
    for each in segments:
        kind, content = each if isinstance(each, tuple) else (each, b"")
        at = 64 + size * len(segments) + len(contents)
        table += struct.pack("<IIQQQQQQ", kind, 0, at, 0, 0, len(content), 0, 0).ljust(size, b"\0")[:size]
        contents += content
    return ident + header + table + contents


DYNAMIC, STATIC = elf(6, 3, 1, 1), elf(1, 1, 4)


def program(directory: Path, content: bytes, name: str = "program", mode: int = 0o755) -> str:
    path = directory / name
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def why_untrapped(command: str, path: str | None = None) -> str | None:
    found = find_obstacle(command, path)
    return found.message if found and found.reason not in NOT_RUN else None


def test_a_real_program_can_be_trapped() -> None:
    assert why_untrapped(sys.executable) is None
    assert why_untrapped("sh") is None


def test_a_dynamic_program(tmp_path: Path) -> None:
    assert why_untrapped(program(tmp_path, DYNAMIC)) is None


def test_a_static_program_is_named(tmp_path: Path) -> None:
    path = program(tmp_path, STATIC)
    why = why_untrapped(path)
    assert why is not None
    assert path in why
    assert "static" in why


@pytest.mark.program("gcc")
def test_a_static_program_of_gcc(tmp_path: Path) -> None:
    subprocess.run(["gcc", "-static", "-x", "c", "-", "-o", tmp_path / "a"], input=b"int main(){}", check=True)
    assert "static" in (why_untrapped(str(tmp_path / "a")) or "")
    subprocess.run(["gcc", "-x", "c", "-", "-o", tmp_path / "b"], input=b"int main(){}", check=True)
    assert why_untrapped(str(tmp_path / "b")) is None


def test_a_scripts_interpreter_counts(tmp_path: Path) -> None:
    static = program(tmp_path, STATIC, "interpreter")
    script = program(tmp_path, f"#!{static} -x\n".encode(), "script")
    assert static in (why_untrapped(script) or "")
    assert static in (why_untrapped(program(tmp_path, f"#! {script}\n".encode(), "script of script")) or "")
    assert why_untrapped(program(tmp_path, b"#!/bin/sh\n", "plain")) is None


def test_a_loop_of_scripts_ends(tmp_path: Path) -> None:
    assert why_untrapped(program(tmp_path, f"#!{tmp_path}/program\n".encode())) is None


def test_it_is_looked_for_in_the_path(tmp_path: Path) -> None:
    program(tmp_path, STATIC, "only-here")
    assert "only-here" in (why_untrapped("only-here", str(tmp_path)) or "")
    assert why_untrapped("only-here", "/usr/bin") is None


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!", b"#!\n", b"#! \n", b"MZ", DYNAMIC[:64], elf(3)[:30], elf()]
)
def test_what_can_t_be_told_is_no_reason(tmp_path: Path, content: bytes) -> None:
    """But for a whole ELF file without an interpreter, which is static."""
    why = why_untrapped(program(tmp_path, content))
    assert why is None or content[:5] == b"\x7fELF\x02"


def test_what_is_not_there_is_no_reason(tmp_path: Path) -> None:
    assert why_untrapped("no-such-program-anywhere") is None
    assert why_untrapped(str(tmp_path)) is None
    assert why_untrapped(program(tmp_path, STATIC, mode=0o644)) is None


def test_setuid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ld.so(8), secure-execution mode: only when the program gains something by it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "setuid" in (why_untrapped(program(tmp_path, DYNAMIC, mode=0o4755)) or "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert why_untrapped(program(tmp_path, DYNAMIC, mode=0o4755)) is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"#!", b"\x7fELF\x02", STATIC[:54]]))
def test_any_file(tmp_path_factory: pytest.TempPathFactory, rest: bytes, head: bytes) -> None:
    path = program(tmp_path_factory.getbasetemp(), head + rest, "any")
    why = why_untrapped(path)
    assert why is None or "any" in why or b"/" in rest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (elf((3, b"/lib64/ld-linux-x86-64.so.2\0"), (4, b"x" * 8)), "no-loader" if MACHINE != 62 else None),
        (elf((3, b"/no/such/ld-linux.so\0")), "no-loader"),
        (elf((3, b"/bin/sh\0")), "other-libc"),
        (elf((3, b""), (4, GO_NOTE)), "go"),
        (elf((4, GO_NOTE)), "static"),
        (elf(3, machine=40), "other-machine"),
        (elf(3)[:4] + b"\x01" + elf(3)[5:], "other-machine"),
        (b"#!/usr/bin/env -S no-such-program -x\n", "not-found"),
        (b"#!/usr/bin/env A=b sh\n", None),
        (b"#!/no/such/interpreter\n", "not-found"),
        (b"#!/etc/passwd\n", "not-executable"),
    ],
)
def test_obstacles(tmp_path: Path, content: bytes, reason: str | None) -> None:
    found = find_obstacle(program(tmp_path, content))
    assert (found and found.reason) == reason
    assert found is None or ("Go" in found.message) == (GO_NOTE in content)


def test_what_can_t_be_run_is_an_obstacle(tmp_path: Path) -> None:
    cases = {
        "no-such-program-anywhere": "not-found",
        str(tmp_path / "nothing"): "not-found",
        str(tmp_path): "not-executable",
        program(tmp_path, DYNAMIC, mode=0o644): "not-executable",
    }
    for command, reason in cases.items():
        found = find_obstacle(command)
        assert found
        assert found.reason == reason


def test_a_script_without_its_interpreter_is_named(tmp_path: Path) -> None:
    path = program(tmp_path, b"#!/no/such/interpreter -x\n")
    found = find_obstacle(path)
    assert found
    assert found.message == f"{path} can't be run: /no/such/interpreter isn't there"
    assert path in found.hint


@pytest.mark.root
@pytest.mark.program("setcap")
def test_file_capabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, DYNAMIC)
    subprocess.run(["setcap", "cap_net_raw+ep", path], check=True)
    assert find_obstacle(path) is None
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = find_obstacle(path)
    assert found
    assert found.reason == "secure"
    assert "capabilities" in found.message


@pytest.mark.program("serf")
def test_a_real_go_program() -> None:
    """Debian's serf is static, or not, with the compiler's whim."""
    found = find_obstacle("serf")
    assert found
    assert found.reason in ("static", "go")
    assert "Go" in found.message
