"""Where the sockets are (DESIGN section 5)."""

from __future__ import annotations

import os
from pathlib import Path

from appswitch.errors import AppSwitchError

SUN_PATH = 108  # bytes of a Unix socket's path (unix(7))


def trap_socket(given: str | None = None) -> Path:
    """The trap socket: as given, else APPSWITCH_SOCKET, else the user's own. AppSwitchError when it is too long."""
    path = Path(given or os.environ.get("APPSWITCH_SOCKET") or _default()).absolute()
    if len(os.fsencode(control_socket(path))) >= SUN_PATH:
        reason = f"the socket's path is too long ({SUN_PATH - 9} bytes at most): {path}"
        raise AppSwitchError("bad-socket", reason, "name a shorter one with --socket or APPSWITCH_SOCKET")
    return path


def control_socket(trap: Path) -> Path:
    """The control socket stands beside the trap socket."""
    return trap.with_name(trap.name + ".control")


def socket_links(trap: Path) -> Path:
    """Where links to listeners' sockets are (edge/listeners.py), stands beside it, too (AS_LINKS in shim/wire.h)."""
    return trap.with_name(trap.name + ".links")


def make_directory(trap: Path) -> None:
    """Makes the directory of the trap socket. AppSwitchError when it can't be used, or is another user's.

    The default without XDG_RUNTIME_DIR is in /tmp, where anybody may have made it first, or the one above it.
    """
    directory = trap.parent
    try:
        directory.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        checked = [directory, directory.parent] if directory.parent == _fallback() else [directory]
        owners = {each.lstat().st_uid for each in checked}
    except OSError as error:
        reason, hint = f"{directory} can't be used: {error.strerror}", "name another place with --socket"
        raise AppSwitchError("no-directory", reason, hint) from None
    others = owners - {0, os.geteuid()}
    if others:
        hint = "set XDG_RUNTIME_DIR, or name another place with --socket"
        raise AppSwitchError("not-yours", f"{directory} is user {min(others)}'s", hint)


def _fallback() -> Path:
    return Path(f"/tmp/appswitch-{os.geteuid()}")


def _default() -> str:
    if os.geteuid() == 0:
        return "/run/appswitch/trap.sock"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or _fallback()}/appswitch/trap.sock"


def shim_path() -> Path:
    """The preload library."""
    return Path(__file__).parent.parent / "libappswitch.so"


def preloadable(shim: Path) -> str:
    """As LD_PRELOAD names it, where a space or a colon ends a name (ld.so(8)). AppSwitchError when that can't be."""
    if not shim.exists():
        raise AppSwitchError("no-shim", f"{shim} is missing", "install AppSwitch with pip: it is built then")
    if {" ", ":"} & set(str(shim)):
        reason = f"LD_PRELOAD can't name {shim}: a space or a colon ends a library's name there"
        raise AppSwitchError("bad-shim-path", reason, "install AppSwitch at a path that has neither")
    return str(shim)


def tracer_path() -> Path:
    """What brings the library into programs that can't preload it; there is none on some machines (setup.py)."""
    return Path(__file__).parent.parent / "appswitch-tracer"


def relay_path() -> Path:
    """What joins connections at a gateway (shim/relay)."""
    return Path(__file__).parent.parent / "appswitch-relay"
