"""HAProxy and nginx, as proxies of TCP connections: their configurations. Each has two threads or workers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"

Passes = Iterable[tuple[str, str]]
"""What comes to this ADDRESS:PORT goes on to that one; without an address, to any."""

HAPROXY = """
global
    nbthread 2
    maxconn 4000
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
STREAM = """
load_module {module};
daemon off; pid {home}/stream.pid; error_log {home}/stream.log; user root; worker_processes 2;
events {{ worker_connections 4000; }}
stream {{ proxy_half_close on; {servers} }}
"""


def haproxy(directory: Path, passes: Passes) -> list[str]:
    """The command; its configuration is put into the directory."""
    parts = (f"listen l{n}\n bind {at} backlog 4096\n server s {to}\n" for n, (at, to) in enumerate(passes))
    config = directory / "haproxy.cfg"
    config.write_text(HAPROXY + "".join(parts))
    return ["haproxy", "-db", "-f", str(config)]


def nginx(directory: Path, passes: Passes) -> list[str]:
    """The same by nginx's stream module."""
    servers = "\n".join(f"server {{ listen {at.lstrip(':')} backlog=4096; proxy_pass {to}; }}" for at, to in passes)
    config = directory / "stream.conf"
    config.write_text(STREAM.format(module=STREAM_MODULE, home=directory, servers=servers))
    return ["nginx", "-c", str(config)]
