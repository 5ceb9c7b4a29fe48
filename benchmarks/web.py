"""nginx as a web server, and wrk, which asks it."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG = """
daemon off; pid {home}/web.pid; error_log {home}/web.log; user root; worker_processes 2;
events {{ worker_connections 4000; }}
http {{
  access_log off; keepalive_requests 100000; client_body_temp_path {home}/b; proxy_temp_path {home}/p;
  fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{ listen {at} backlog=4096; return 200 "hello\\n"; }}
}}
"""
KEPT, CLOSED = "keep-alive", "close"
"""What becomes of a connection after its request."""


def nginx(directory: Path, at: str) -> list[str]:
    """The command of a server at this PORT or ADDRESS:PORT. The directory has its configuration, and is its own."""
    config = directory / "web.conf"
    config.write_text(CONFIG.format(home=directory, at=at))
    return ["nginx", "-c", str(config)]


def wrk(address: str, port: int, connection: str, seconds: float) -> list[str]:
    """The command. connection: KEPT or CLOSED; seconds: wrk counts whole ones, at least one."""
    long = f"-d{max(1, round(seconds))}s"
    return ["wrk", "-t1", "-c32", long, "--latency", "-H", f"Connection: {connection}", f"http://{address}:{port}/"]


def told(said: str) -> dict[str, float]:
    """requests, seconds; median, p99 in microseconds. RuntimeError: not all of its requests were answered."""
    if "Socket errors" in said or "Non-2xx" in said:
        raise RuntimeError(f"requests failed: {said}")
    total = re.search(r"(\d+) requests in ([\d.]+)(m?s)", said)
    times = dict(re.findall(r"(50|99)%\s+([\d.]+[mu]?s)", said))
    if total is None or len(times) != 2:
        raise RuntimeError(f"wrk said something else: {said}")
    return {
        "requests": float(total[1]),
        "seconds": float(total[2]) / (1000 if total[3] == "ms" else 1),
        "median": _microseconds(times["50"]),
        "p99": _microseconds(times["99"]),
    }


def _microseconds(text: str) -> float:
    """Of wrk's `1.23ms`."""
    number, unit = text.rstrip("mus"), text.lstrip("0123456789.")
    return float(number) * {"us": 1.0, "ms": 1e3, "s": 1e6}[unit]
