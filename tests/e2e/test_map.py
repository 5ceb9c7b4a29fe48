"""The map of a real setup, in a real browser: `serve --http`, programs under `spawn`, Chromium."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.harness import Switch, free_port, running_switch
from tests.web.static.chromium import Page, running_browser

pytestmark = pytest.mark.program("chromium")

SERVER = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])), backlog=100)
while True:
    server.accept()[0].close()
"""
CLIENT = """
import socket, sys, time
while True:
    for dest in sys.argv[1:]:
        name, port = dest.split(":")
        try:
            socket.create_connection((name, int(port))).close()
        except OSError:
            pass
    time.sleep(0.05)
"""
EDGES = """[...document.querySelectorAll('.edges .edge')].map((edge) =>
    [edge.classList[1], edge.dataset.from, edge.dataset.to, edge.classList[2]].join(' ')).sort()"""


@pytest.fixture
def page() -> Iterator[Page]:
    with running_browser() as browser:
        yield browser.new_page()


def start_shop(switch: Switch) -> None:
    """Two groups: web calls db, which probe may not; probe calls web."""
    python = sys.executable
    switch.spawn("--name", "db", "--tag", "grp=back", "--", python, "-c", SERVER, "5432")
    switch.spawn("--name", "web", "--", python, "-c", SERVER, "80")
    switch.wait_for("db:5432", "web:80")
    switch.spawn("--name", "shop", "--tag", "grp=back", "--", python, "-c", CLIENT, "db:5432", "web:80")
    switch.spawn("--name", "probe", "--tag", "grp=front", "--", python, "-c", CLIENT, "db:5432")


def test_the_map_of_what_runs(page: Page) -> None:
    address = f"127.0.0.1:{free_port()}"
    with running_switch("--http", address) as switch:
        start_shop(switch)
        page.set_size(1400, 900)
        page.open(f"http://{address}/")
        page.wait_for(f"{EDGES}.filter((edge) => !edge.endsWith('idle')).length >= 3")
        edges = [edge.split() for edge in page.run(EDGES)]
        assert {tuple(edge[:3]) for edge in edges} == {
            ("unix", "n1/shop/grp=back", "n1/db/grp=back"),
            ("unix", "n1/shop/grp=back", "n1/web"),
            ("denied", "n1/probe/grp=front", "n1/db/grp=back"),
        }
        titles = page.run("[...document.querySelectorAll('.card .name')].map((name) => name.textContent).sort()")
        assert titles == ["db", "probe", "shop", "web"]
        red, green, blue = page.run(
            "getComputedStyle(document.querySelector('.edge.denied .line')).stroke.match(/[0-9]+/g).map(Number)"
        )
        assert red > 1.5 * max(green, blue)
        page.wait_for(
            "[...document.querySelectorAll('#log tr.deny')].some((row) => row.innerText.includes('probe @n1'))"
        )
        switch.run("--", sys.executable, "-c", "import socket; socket.create_connection(('web', 80))")
        page.wait_for("document.querySelector('#log tr.connect')")  # those before may have been earlier than the page

        page.click('.card[data-key^="n1/db"]')
        page.wait_for("document.querySelector('#may-reach tbody tr')")
        rows = page.run("[...document.querySelectorAll('#may-reach tbody tr')].map((row) => row.innerText)")
        said = {row.split()[0]: row for row in rows}
        assert "allow" in said["shop"]
        assert "deny" in said["probe"]
        assert "grp" in said["probe"]

        page.click("#panel button.kind.denied")
        page.wait_for("document.querySelector('#why .verdict.deny')")
        assert page.complaints == []

        switch.kill_server()
        page.wait_for("document.querySelector('#health').dataset.is === 'stale'")
        switch.serve("--http", address)
        page.wait_for("document.querySelector('#health').dataset.is === 'live'")
        page.wait_for(f"{EDGES}.some((edge) => edge.startsWith('denied n1/probe'))")
