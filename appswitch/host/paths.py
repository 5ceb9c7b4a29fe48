"""Where the sockets are (DESIGN section 5)."""

from __future__ import annotations

import os
from pathlib import Path

SUN_PATH = 108  # bytes of a Unix socket's path (unix(7))


def trap_socket(given: str | None = None) -> Path:
    """The trap socket: as given, else APPSWITCH_SOCKET, else the user's own. ValueError when it is too long."""
    path = Path(given or os.environ.get("APPSWITCH_SOCKET") or _default()).absolute()
    if len(os.fsencode(control_socket(path))) >= SUN_PATH:
        raise ValueError(f"the socket's path is too long ({SUN_PATH - 9} bytes at most): {path}")
    return path


def control_socket(trap: Path) -> Path:
    """The control socket stands beside the trap socket."""
    return trap.with_name(trap.name + ".control")


def _default() -> str:
    if os.geteuid() == 0:
        return "/run/appswitch/trap.sock"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/appswitch-{os.geteuid()}"
    return f"{runtime}/appswitch/trap.sock"


def shim_path() -> Path:
    """The preload library."""
    return Path(__file__).parent.parent / "libappswitch.so"
