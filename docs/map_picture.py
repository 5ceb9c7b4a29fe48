"""Takes docs/map.png: the map of a shop on three hosts (namespaces of this machine), with programs that really run.

python -m docs.map_picture [FILE]        (root only, with Chromium; a minute)
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.hosts import INTERNET, Host, network
from tests.web.static.chromium import running_browser

PORT = 8080
SETTLED = 20.0  # seconds after which rates are what they will be

PROGRAM = '''
"""PORT... -- DEST:PORT/RATE[/udp]...: serves, and connects to others so many times a second."""
import socket, sys, threading, time

def serve(port):
    server = socket.create_server(("", port), backlog=100)
    while True:
        server.accept()[0].close()

def call(dest):
    where, rate, *udp = dest.split("/")
    host, port = where.split(":")
    while True:
        time.sleep(1 / float(rate))
        try:
            if udp:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"x:1|c", (host, int(port)))
            else:
                socket.create_connection((host, int(port)), timeout=3).close()
        except OSError:
            pass

def gather(port):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("", port))
    while True:
        receiver.recv(100)

divide = sys.argv.index("--")
for word in sys.argv[1:divide]:
    port, *udp = word.split("/")
    threading.Thread(target=gather if udp else serve, args=[int(port)]).start()
for dest in sys.argv[divide + 1:]:
    threading.Thread(target=call, args=[dest]).start()
'''


def start(host: Host, name: str, ports: str, calls: str, *flags: str) -> None:
    """An app that serves ports and calls others."""
    program = [sys.executable, "-c", PROGRAM, *ports.split(), "--", *calls.split()]
    host.spawn("--name", name, *flags, "--", *program)


def take(file: Path) -> None:
    """Runs the shop, looks at it, and writes the picture."""
    with network() as made:
        flags = ["--http", f"127.0.0.1:{PORT}"]
        alpha, beta, gamma = made.serve("alpha", "beta", "gamma", flags=flags, gateways=["gamma"])
        outside = made.internet(gamma)
        outside.start(sys.executable, "-c", PROGRAM, "443", "--", log=made.hosts[0].directory / "outside.log")

        front, both, back = ["--tag", "grp=front"], ["--tag", "grp=front", "--tag", "grp=back"], ["--tag", "grp=back"]
        start(beta, "login", "8080", "", *both)
        start(beta, "mail", "25", "")
        start(gamma, "metrics", "8125/udp", "")
        start(alpha, "db", "5432", "", *back)
        start(alpha, "cache", "6379", "", *back)
        alpha.wait_for("login:8080", "mail:25", "db:5432", "cache:6379")
        calls = f"db:5432/4 cache:6379/30 mail:25/0.5 metrics:8125/3/udp {INTERNET}1:443/1"
        start(alpha, "cart", "8080", calls, *both)
        alpha.wait_for("cart:8080")
        for _ in range(2):
            start(alpha, "web", "80", "cart:8080/8 login:8080/2", *front)
        beta.wait_for("web:80")
        for number in range(1, 25):
            start(alpha, f"visitor-{number}", "", "web:80/1", *front)
        start(alpha, "probe", "", "db:5432/1 cache:6379/0.5", "--tag", "env=test")
        start(beta, "report", "", "db:5432/0.4", *back)
        start(gamma, "watch", "", "web:80/0.5", *front)

        with running_browser(*alpha.prefix) as browser:
            page = browser.new_page()
            page.set_size(1460, 860)
            page.prefer(color_scheme="light", reduced_motion="reduce")
            page.open(f"http://127.0.0.1:{PORT}/")
            page.wait_for("document.querySelectorAll('.edge').length >= 12")
            time.sleep(SETTLED)
            page.picture(file)


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "map.png")
