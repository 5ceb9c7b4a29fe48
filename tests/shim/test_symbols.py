"""What libappswitch.so exports and imports."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path

SHIM = Path(__file__).parents[2] / "shim"

SOCKETS = "socket shutdown bind listen connect __connect accept accept4 getsockname getpeername getsockopt setsockopt"
MESSAGES = "write writev send sendto sendmsg sendmmsg recvfrom recvmsg epoll_ctl syscall chroot"
EXEC = "execve execv execvp execvpe execveat fexecve execl execlp execle posix_spawn posix_spawnp"
NAMES = "getaddrinfo gethostbyname gethostbyname2 gethostbyname_r gethostbyname2_r getnameinfo gethostbyaddr"
INTERFACES = "gethostbyaddr_r getifaddrs freeifaddrs ioctl unshare setns"
HOOKS = {*SOCKETS.split(), *MESSAGES.split(), *EXEC.split(), *NAMES.split(), *INTERFACES.split()}


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def symbols(*flags: str) -> set[str]:
    """TYPE NAME of each dynamic symbol."""
    lines = output_of("nm", "-D", *flags, str(shim_path())).splitlines()
    return {" ".join(line.split()[-2:]) for line in lines}


@pytest.mark.program("nm")
def test_exports_the_hooks_and_nothing_else() -> None:
    assert symbols("--defined-only") == {f"T {name}" for name in HOOKS}


def test_the_hooks_are_what_the_sources_mark() -> None:
    marked = set()
    for source in SHIM.glob("*.c"):
        marked |= set(re.findall(r"^HOOK [^(]*?(\w+)\(", source.read_text(), re.MULTILINE))
    assert marked == HOOKS


@pytest.mark.program("nm")
def test_imports_errno_and_two_weak_symbols() -> None:
    assert symbols("--undefined-only") == {"U __errno_location", "w dlsym", "w environ"}


@pytest.mark.program("readelf")
def test_needs_no_library() -> None:
    dynamic = output_of("readelf", "-d", str(shim_path()))
    assert "(NEEDED)" not in dynamic
    assert "(TEXTREL)" not in dynamic


@pytest.mark.program("readelf")
def test_has_no_thread_local_storage_and_no_executable_stack() -> None:
    headers = output_of("readelf", "-lW", str(shim_path()))
    assert "TLS" not in headers.split()
    assert re.search(r"GNU_STACK .* RW +0x", headers)
    assert "GNU_RELRO" in headers
    assert " TLS " not in output_of("readelf", "-sW", str(shim_path()))


@pytest.mark.program("readelf")
def test_no_symbol_of_a_newer_libc_is_asked_for() -> None:
    """It loads into any glibc and into musl: no symbol has a version."""
    assert "No version information" in output_of("readelf", "-V", str(shim_path()))
