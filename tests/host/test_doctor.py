"""What the doctor says of machines that are like this or that."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from appswitch.host import doctor, elf
from appswitch.host.doctor import OK, PROBLEM, WARNING, Finding, Machine
from appswitch.host.namespace import NamespaceForbidden
from appswitch.host.paths import shim_path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Its files are in tmp_path."""
    return Machine(tmp_path / "trap.sock", shim_path(), 2097152, 4096, uid=1000, root=tmp_path)


def write(machine: Machine, path: str, text: str) -> None:
    file = machine.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_this_machine_runs_the_tests_so_it_has_no_problem_but_namespaces() -> None:
    here = Machine(Path("/nowhere/trap.sock"), shim_path(), 2097152, 4096, os.geteuid())
    findings = {each.check: each for each in doctor.examine(here)}
    for check in ("kernel", "memfd", "shim"):
        assert findings[check].level == OK
    assert findings["trap handler"].level == WARNING
    assert all(each.hint for each in findings.values() if each.level != OK)
    assert all(each.message for each in findings.values())


@pytest.mark.parametrize(
    ("check", "path", "good", "bad", "hint"),
    [
        (doctor.send_buffer, "proc/sys/net/core/wmem_max", 2097152, 212992, "wmem_max=2097152"),
        (doctor.backlog, "proc/sys/net/core/somaxconn", 4096, 128, "somaxconn=4096"),
        (doctor.tracing, "proc/sys/kernel/yama/ptrace_scope", 0, 1, "ptrace_scope=0"),
    ],
)
def test_sysctls(machine: Machine, check: doctor.Check, path: str, good: int, bad: int, hint: str) -> None:
    assert check(machine).level == OK  # the kernel has no such setting
    write(machine, path, f"{good}\n")
    assert check(machine).level == OK
    write(machine, path, f"{bad}\n")
    found = check(machine)
    assert (found.level, str(bad) in found.message, hint in found.hint) == (WARNING, True, True)


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("proc/sys/kernel/unprivileged_userns_clone", 0, "unprivileged_userns_clone=1"),
        ("proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1, "unprivileged_userns=0"),
        ("proc/sys/user/max_user_namespaces", 0, "max_user_namespaces="),
        ("none", 0, "root"),
    ],
)
def test_namespaces(machine: Machine, monkeypatch: pytest.MonkeyPatch, path: str, value: int, hint: str) -> None:
    def forbidden() -> None:
        raise NamespaceForbidden("the kernel forbids it")

    monkeypatch.setattr(doctor, "enter_new_namespace", lambda: None)
    assert doctor.namespaces(machine).level == OK
    monkeypatch.setattr(doctor, "enter_new_namespace", forbidden)
    write(machine, path, str(value))
    found = doctor.namespaces(machine)
    assert (found.level, found.message) == (PROBLEM, "the kernel forbids it")
    assert hint in found.hint
    assert "--no-netns" in found.hint


def test_io_uring(machine: Machine) -> None:
    assert doctor.io_uring(machine).level == WARNING
    write(machine, "proc/sys/kernel/seccomp/actions_avail", "errno allow\n")
    assert doctor.io_uring(machine).level == OK
    (machine.root / "proc/sys/kernel/seccomp/actions_avail").unlink()
    write(machine, "proc/sys/kernel/io_uring_disabled", "2\n")
    assert doctor.io_uring(machine).level == OK


def test_descriptors(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for hard, level in ((resource.RLIM_INFINITY, OK), (4096, OK), (1024, WARNING)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (256, hard))
        assert doctor.descriptors(machine).level == level


def test_the_shim(machine: Machine, tmp_path: Path) -> None:
    missing = machine._replace(shim=tmp_path / "nothing.so", root=Path("/"))
    assert doctor.shim(missing).level == PROBLEM
    (tmp_path / "junk.so").write_bytes(b"junk")
    found = doctor.shim(machine._replace(shim=tmp_path / "junk.so", root=Path("/")))
    assert (found.level, "can't load" in found.message) == (PROBLEM, True)


@pytest.mark.program("musl-gcc")
def test_the_shim_under_musl() -> None:
    found = doctor.shim(Machine(Path("/"), shim_path(), 0, 0, 0))
    assert "ld-musl" in found.message
    assert "ld-linux" in found.message


@pytest.mark.parametrize(
    ("text", "level"),
    [("nameserver 10.0.0.1\n", OK), ("nameserver dns.example\n", WARNING), ("", WARNING), (None, WARNING)],
)
def test_name_servers(machine: Machine, text: str | None, level: str) -> None:
    if text is not None:
        write(machine, "etc/resolv.conf", text)
    found = doctor.name_servers(machine)
    assert found.level == level
    assert "10.0.0.1" in found.message or "--dns-upstream" in found.hint


def test_name_services(machine: Machine) -> None:
    assert doctor.name_services(machine).level == OK
    for sources, level in (("files dns", OK), ("files resolve [!UNAVAIL=return] dns # files", OK), ("files", PROBLEM)):
        write(machine, "etc/nsswitch.conf", f"passwd: files\nhosts: {sources}\n")
        assert doctor.name_services(machine).level == level
    write(machine, "etc/nsswitch.conf", "hosts: files dns\n")
    (machine.root / "run/nscd").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as nscd:
        nscd.bind(str(machine.root / "run/nscd/socket"))
        found = doctor.name_services(machine)
    assert (found.level, "/run/nscd/socket" in found.message) == (WARNING, True)
    (machine.root / "run/nscd/socket").unlink()
    (machine.root / "run/systemd/resolve").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as resolved:
        resolved.bind(str(machine.root / "run/systemd/resolve/io.systemd.Resolve"))
        lines = {"files resolve [!UNAVAIL=return] dns": WARNING, "files dns resolve": OK, "files dns": OK}
        for text, level in lines.items():
            write(machine, "etc/nsswitch.conf", f"hosts: {text}\n")
            assert doctor.name_services(machine).level == level


def test_programs() -> None:
    assert doctor.examine_program("sh") == Finding("sh", OK, "can be trapped")
    found = doctor.examine_program("/no/such/program")
    assert (found.check, found.level) == ("/no/such/program", PROBLEM)


def test_how_static_programs_are_trapped(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPSWITCH_TRACER", raising=False)
    by_notify = "static and Go programs are trapped by notify: this kernel tells threads of their own calls"
    assert doctor.static_programs(machine) == Finding("tracer", OK, by_notify)
    monkeypatch.setenv("APPSWITCH_TRACER", "ptrace")
    by_ptrace = "static and Go programs are trapped by ptrace: as APPSWITCH_TRACER says"
    assert doctor.static_programs(machine) == Finding("tracer", OK, by_ptrace)
    monkeypatch.setenv("APPSWITCH_TRACER", "magic")
    found = doctor.static_programs(machine)
    assert (found.level, found.message) == (
        PROBLEM, "APPSWITCH_TRACER=magic: there is no such way to trap programs",
    )  # fmt: skip


def test_a_static_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appswitch.host.elf.find_obstacle", lambda _: elf.Obstacle("static", "it is static", ""))
    for way, level, message in (
        ("ptrace", OK, "it is static: it is trapped by ptrace"),
        ("notify", OK, "it is static: it is trapped by notify"),
        ("magic", PROBLEM, "APPSWITCH_TRACER=magic: there is no such way to trap programs"),
    ):
        monkeypatch.setenv("APPSWITCH_TRACER", way)
        assert doctor.examine_program("p")[:3] == ("p", level, message)


@pytest.mark.parametrize("scope", [2, 3])
def test_tracing_forbidden(machine: Machine, scope: int) -> None:
    write(machine, "proc/sys/kernel/yama/ptrace_scope", f"{scope}\n")
    assert doctor.static_programs(machine).level == WARNING


def test_no_tracer(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("appswitch.host.tracer.tracer_path", lambda: tmp_path / "none")
    assert doctor.static_programs(machine).level == WARNING
