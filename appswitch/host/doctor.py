"""What this machine allows, and what would keep a program from working: a check each, a finding each.

Every check is a function of the machine as it is described; `root` is where its files are, so that tests bring others.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from appswitch.errors import AppSwitchError
from appswitch.host import elf, resolv_conf, tracer
from appswitch.host.control_client import connect
from appswitch.host.cookies import netns_of
from appswitch.host.namespace import NamespaceForbidden, enter_new_namespace
from appswitch.host.paths import preloadable

OK, WARNING, PROBLEM = "ok", "warning", "problem"
F_ADD_SEALS, F_SEAL_FUTURE_WRITE = 1033, 16  # linux/fcntl.h
FEW_DESCRIPTORS = 4096
NSCD = "turn its cache of host names off (`enable-cache hosts no` in nscd.conf), or stop it"
RESOLVED = "write `dns` before `resolve` in nsswitch.conf"
NAME_SERVICES = {  # a socket that libc asks, and how to keep it from that
    "run/nscd/socket": NSCD,
    "var/run/nscd/socket": NSCD,
    "run/systemd/resolve/io.systemd.Resolve": RESOLVED,
}
LOADERS = ("lib64/ld-linux-*", "lib/ld-linux-*", "lib/ld-musl-*.so.1")  # of glibc and musl


class Finding(NamedTuple):
    """level: OK, WARNING (it works, but) or PROBLEM (it doesn't); hint: what to do about it."""

    check: str
    level: str
    message: str
    hint: str = ""


class Machine(NamedTuple):
    """send_buffer, backlog: what a socket asks for (shim/wire.h)."""

    trap: Path
    shim: Path
    send_buffer: int
    backlog: int
    uid: int
    root: Path = Path("/")

    def number(self, path: str) -> int | None:
        """What a file with a number says; None: it isn't there."""
        try:
            return int((self.root / path).read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None


Check = Callable[[Machine], Finding]


def examine(machine: Machine) -> list[Finding]:
    """All findings about the machine."""
    return [check(machine) for check in CHECKS]


def examine_program(command: str) -> Finding:
    """Whether a program can be trapped."""
    obstacle = elf.find_obstacle(command)
    if obstacle is None:
        return Finding(command, OK, "can be trapped")
    if not tracer.reaches(obstacle):
        return Finding(command, PROBLEM, obstacle.message, obstacle.hint)
    try:
        return Finding(command, OK, f"{obstacle.message}: it is trapped by {tracer.way()}")
    except AppSwitchError as error:
        return Finding(command, PROBLEM, error.message, error.hint)


def kernel(machine: Machine) -> Finding:
    """The trap handler knows its callers by SO_NETNS_COOKIE (edge/apps.py)."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            netns_of(probe)
        except OSError:
            message = f"Linux {os.uname().release} has no SO_NETNS_COOKIE: callers can't be identified"
            return Finding("kernel", PROBLEM, message, "Linux 5.14 or later is needed")
    return Finding("kernel", OK, f"Linux {os.uname().release}, {os.uname().machine}")


def sealed_memory(machine: Machine) -> Finding:
    """The epoch page (edge/epoch.py)."""
    try:
        fd = os.memfd_create("appswitch-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        return Finding("memfd", PROBLEM, f"memfd_create fails: {error.strerror}", "is it filtered by a sandbox?")
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    except OSError as error:
        return Finding("memfd", PROBLEM, f"memory can't be sealed: {error.strerror}", "Linux 5.1 or later is needed")
    finally:
        os.close(fd)
    return Finding("memfd", OK, "memory can be shared and sealed")


def namespaces(machine: Machine) -> Finding:
    """Tried in a child."""
    heard, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_new_namespace()
        except (NamespaceForbidden, OSError) as error:
            os.write(say, str(error).encode())
        finally:
            os._exit(0)
    os.close(say)
    with open(heard, "rb") as answer:  # noqa: PTH123 - a descriptor
        why = answer.read().decode()
    os.waitpid(child, 0)
    if not why:
        who = "root" if machine.uid == 0 else "this user"
        return Finding("namespaces", OK, f"{who} may make network namespaces")
    limits = {
        "proc/sys/kernel/unprivileged_userns_clone": (0, "sysctl kernel.unprivileged_userns_clone=1"),
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
            1, "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        "proc/sys/user/max_user_namespaces": (0, "sysctl user.max_user_namespaces=10000"),
    }  # fmt: skip
    hint = next((hint for path, (bad, hint) in limits.items() if machine.number(path) == bad), "run it as root")
    return Finding("namespaces", PROBLEM, why, f"{hint}; or spawn --no-netns, which seals nothing")


def io_uring(machine: Machine) -> Finding:
    """host/seccomp.py refuses it to programs in a namespace, by a filter."""
    if machine.number("proc/sys/kernel/io_uring_disabled") == 2:
        return Finding("io_uring", OK, "the kernel has it turned off")
    if (machine.root / "proc/sys/kernel/seccomp/actions_avail").exists():
        return Finding("io_uring", OK, "spawn can refuse it, so that programs fall back to calls that are trapped")
    hint = "sysctl kernel.io_uring_disabled=2, or tell the program not to use it"
    return Finding("io_uring", WARNING, "there are no seccomp filters: a program that uses it isn't trapped", hint)


def send_buffer(machine: Machine) -> Finding:
    """Root's trap handler may pass the limit; the shim, which connects by capability, may not."""
    most = machine.number("proc/sys/net/core/wmem_max")
    if most is None or most >= machine.send_buffer:
        return Finding("wmem_max", OK, f"net.core.wmem_max is {most}")
    message = f"net.core.wmem_max is {most}: a program that sends many small writes before it reads may block"
    return Finding("wmem_max", WARNING, message, f"sysctl net.core.wmem_max={machine.send_buffer}")


def backlog(machine: Machine) -> Finding:
    """A full queue costs a non-blocking client time."""
    most = machine.number("proc/sys/net/core/somaxconn")
    if most is None or most >= machine.backlog:
        return Finding("somaxconn", OK, f"net.core.somaxconn is {most}")
    message = f"net.core.somaxconn is {most}: a burst of connects may wait"
    return Finding("somaxconn", WARNING, message, f"sysctl net.core.somaxconn={machine.backlog}")


def descriptors(machine: Machine) -> Finding:
    """The trap handler keeps one a listener and one a connection of a thread to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= FEW_DESCRIPTORS:
        return Finding("nofile", OK, f"the trap handler may open {hard} descriptors")
    message = f"the trap handler may open {hard} descriptors: enough for few programs"
    return Finding("nofile", WARNING, message, "raise `ulimit -Hn`, or LimitNOFILE= of the unit")


def shim(machine: Machine) -> Finding:
    """Loaded by whichever C libraries there are."""
    try:
        preloadable(machine.shim)
    except AppSwitchError as error:
        return Finding("shim", PROBLEM, error.message, error.hint)
    loaders = [path for pattern in LOADERS for path in sorted(machine.root.glob(pattern))]
    for loader in loaders:
        command = [str(loader), "--preload", str(machine.shim), "--list", "/bin/true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if str(machine.shim) not in done.stdout or str(machine.shim) in done.stderr:
            hint = "was it built on another machine? `pip install --force-reinstall .` builds it here"
            return Finding("shim", PROBLEM, f"{loader} can't load {machine.shim}", hint)
    return Finding("shim", OK, f"{machine.shim} can be loaded by {' and '.join(path.name for path in loaders)}")


def trap_handler(machine: Machine) -> Finding:
    """Whether one answers."""
    try:
        client = connect(machine.trap)
    except AppSwitchError as error:
        return Finding("trap handler", PROBLEM, error.message, error.hint)
    if client is None:
        message = f"none runs at {machine.trap}"
        return Finding("trap handler", WARNING, message, "`appswitch spawn` starts one, or `appswitch serve`")
    client.close()
    return Finding("trap handler", OK, f"answers at {machine.trap}")


def name_servers(machine: Machine) -> Finding:
    """Who is asked for what no app is named."""
    path = machine.root / "etc/resolv.conf"
    try:
        found = resolv_conf.read(path)
    except OSError as error:
        found = resolv_conf.ResolvConf((), (), (f"({error.strerror})",))
    if found.servers:
        return Finding("DNS", OK, f"other names are asked of {', '.join(found.servers)}")
    message = f"{path} names no name server: apps are found, other names are not"
    return Finding("DNS", WARNING, message, "name one with `appswitch serve --dns-upstream ADDR`")


def name_services(machine: Machine) -> Finding:
    """What could answer libc without asking DNS (nsswitch.conf(5), nscd(8))."""
    try:
        lines = (machine.root / "etc/nsswitch.conf").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    sources = next((line.split("#")[0].split()[1:] for line in lines if line.startswith("hosts:")), ["dns"])
    if not {"dns", "resolve"} & set(sources):
        message = "nsswitch.conf has no `dns` among the sources of host names: glibc finds no app by name"
        return Finding("name services", PROBLEM, message, "write `hosts: files dns`")
    by_resolved = "resolve" in sources and "dns" not in sources[: sources.index("resolve")]
    for path, hint in NAME_SERVICES.items():
        if (machine.root / path).is_socket() and (hint is not RESOLVED or by_resolved):
            return Finding("name services", WARNING, f"/{path} may answer for host names, and knows no app", hint)
    return Finding("name services", OK, "nothing answers for host names but DNS")


def static_programs(machine: Machine) -> Finding:
    """host/tracer.py."""
    try:
        way = tracer.way()
    except AppSwitchError as error:
        return Finding("tracer", PROBLEM, error.message, error.hint)
    if not tracer.is_there():
        message = f"there is none for {os.uname().machine}: static and Go programs have no network"
        return Finding("tracer", WARNING, message, "run a dynamic build of them, if there is one")
    scope = machine.number("proc/sys/kernel/yama/ptrace_scope") or 0
    if scope == 3 or (scope == 2 and machine.uid != 0):
        message = f"kernel.yama.ptrace_scope is {scope}: static and Go programs have no network"
        return Finding("tracer", WARNING, message, "sysctl kernel.yama.ptrace_scope=1, or run them as root")
    if _tracer_complains():
        message = "tracing is forbidden here: static and Go programs have no network"
        hint = "is this run by a debugger, or in a container that forbids ptrace or seccomp?"
        return Finding("tracer", WARNING, message, hint)
    return Finding("tracer", OK, f"static and Go programs are trapped by {way}: {tracer.reason()}")


def _tracer_complains() -> bool:
    """Tried."""
    command = tracer.traced(["sh", "-c", ":"])
    return b"can't be traced" in subprocess.run(command, capture_output=True, check=False).stderr


def tracing(machine: Machine) -> Finding:
    """Ending a connection borrows its descriptor from the program (host/cut.py; pidfd_getfd(2))."""
    scope = machine.number("proc/sys/kernel/yama/ptrace_scope") or 0
    if scope == 0 or (machine.uid == 0 and scope < 3):
        return Finding("ptrace_scope", OK, "connections can be ended from outside")
    message = (
        f"kernel.yama.ptrace_scope is {scope}: connections of apps without a namespace can't be ended from outside"
    )
    return Finding("ptrace_scope", WARNING, message, "sysctl kernel.yama.ptrace_scope=0")


CHECKS: tuple[Check, ...] = (
    kernel, sealed_memory, namespaces, io_uring, send_buffer, backlog, descriptors, shim, trap_handler,
    name_servers, name_services, tracing, static_programs,
)  # fmt: skip
