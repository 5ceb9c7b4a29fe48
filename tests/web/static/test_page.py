"""The page in a real browser, with states that are made up: looks, filters, hostile names, hubs, a server that goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness import eventually
from tests.web.static import states
from tests.web.static.chromium import Page
from tests.web.static.stub import StubServer, running_stub

pytestmark = pytest.mark.program("chromium")

PLACES = """Object.fromEntries([...document.querySelectorAll('.card')].map(
    (card) => [card.dataset.key, card.getAttribute('transform')]))"""
NAMES = "[...document.querySelectorAll('.card .name')].map((name) => name.textContent).sort()"
WHY = {"verdict": "deny", "allowed": False, "rule": "no-tests", "reason": "tests stay out", "candidates": []}


def shown(page: Page, server: StubServer, query: str = "") -> None:
    """Opens the map, and waits until it shows the state."""
    page.open(server.url + query)
    page.wait_for("document.querySelector('#health').dataset.is === 'live'")
    eventually(lambda: server.streams)


def colour(page: Page, selector: str, name: str = "stroke") -> list[int]:
    """Of the first element that fits: red, green, blue."""
    text = page.run(f"getComputedStyle(document.querySelector({selector!r})).{name}")
    return [int(number) for number in text.removeprefix("rgb(").removesuffix(")").split(",")]


def test_cards_edges_and_hosts(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        shown(page, server)
        boxes = page.run("[...document.querySelectorAll('.hostname')].map((name) => name.textContent)")
        assert boxes == ["alpha", "beta", "gamma", "Outside"]
        names = page.run(NAMES)
        assert {"web", "cart", "login", "db", "probe", "smtp.example.com", "198.51.100.7"} <= set(names)
        media = page.run("[...document.querySelectorAll('.edges .edge')].map((edge) => edge.classList[1])")
        assert set(media) == {"unix", "tcp", "gateway", "udp", "denied"}
        assert "42.5/s" in page.run("[...document.querySelectorAll('.label text')].map((text) => text.textContent)")
        inside = """[...document.querySelectorAll('.card')].every((card) => {
            const box = card.getBoundingClientRect();
            return [...card.querySelectorAll('text')].every((text) => text.getBoundingClientRect().right <= box.right);
        })"""
        assert page.run(inside), "a text is wider than its card"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_denied_attempts_have_a_colour_of_their_own(page: Page, scheme: str) -> None:
    page.prefer(color_scheme=scheme)
    with running_stub(states.shop().value) as server:
        shown(page, server)
        red, green, blue = colour(page, ".edge.denied .line")
        assert red > 1.5 * max(green, blue)
        lines = [tuple(colour(page, f".edge.{kind} .line")) for kind in ("unix", "tcp", "gateway", "udp", "denied")]
        assert len(set(lines)) == 5
        dashes = """['tcp', 'gateway', 'udp', 'denied', 'unix'].map((kind) =>
            getComputedStyle(document.querySelector(`.edge.${kind} .line`)).strokeDasharray)"""
        assert len(set(page.run(dashes))) == 5, "who can't tell colours can't tell them"


CONTRASTS = """(() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const paint = (colour) => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (colour) => {
        const [r, g, b] = paint(colour).map((part) => part / 255).map((part) =>
            part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(document.documentElement);
    const value = (name) => light(style.getPropertyValue(`--${name}`));
    const found = {};
    for (const text of ['text', 'muted', 'accent', 'good', 'warn', 'bad', 'unix', 'tcp', 'gateway', 'udp', 'denied'])
        for (const ground of ['surface', 'raised']) {
            const [one, other] = [value(text), value(ground)].sort((a, b) => b - a);
            found[`${text} on ${ground}`] = (one + 0.05) / (other + 0.05);
        }
    return found;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5."""
    page.prefer(color_scheme=scheme)
    with running_stub(states.shop().value) as server:
        shown(page, server)
        assert {name: ratio for name, ratio in page.run(CONTRASTS).items() if ratio < 4.5} == {}


def test_nothing_moves_for_who_wants_it_still(page: Page) -> None:
    moving = "document.getAnimations().filter((animation) => animation.playState === 'running').length"
    with running_stub(states.shop().value) as server:
        shown(page, server)
        assert page.run(moving) > 0
        page.prefer(reduced_motion="reduce")
        page.wait_for(f"{moving} === 0")


def test_a_filter_is_in_the_url_and_survives_a_reload(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        shown(page, server)
        page.click("input[name=name]")
        page.type("login")
        page.wait_for("location.search === '?name=login'")
        page.wait_for("!document.querySelector('.card[data-key^=\"alpha/probe\"]')")
        before = page.run(NAMES)
        page.reload()
        page.wait_for("document.querySelectorAll('.card').length")
        assert page.run("[location.search, document.querySelector('input[name=name]').value]") == [
            "?name=login",
            "login",
        ]
        assert page.run(NAMES) == before
        assert page.run("document.querySelectorAll('.card.faint').length") == len(before) - 1
        page.click("#clear")
        page.wait_for("document.querySelector('.card[data-key^=\"alpha/probe\"]')")
        assert page.run("location.search") == ""
        page.run("history.back()")
        page.wait_for("!document.querySelector('.card[data-key^=\"alpha/probe\"]')")


def test_filters_by_tag_host_and_kind(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        shown(page, server, "?tag=env=test")
        page.wait_for(f"{NAMES}.join() === 'cache,db,probe'")
        shown(page, server, "?node=gamma&hide=denied,udp")
        page.wait_for("document.querySelectorAll('.card:not(.faint)').length === 3")
        assert page.run("document.querySelector('select[name=node]').value") == "gamma"
        assert page.run("document.querySelectorAll('.edges .denied, .edges .udp').length") == 0
        assert page.run("document.querySelector('[data-kind=udp]').getAttribute('aria-pressed')") == "false"
        page.click("[data-kind=udp]")
        page.wait_for("location.search === '?node=gamma&hide=denied'")
        page.wait_for("document.querySelectorAll('.edges .udp').length > 0")


def test_positions_are_the_same_after_refreshes_and_reloads(page: Page) -> None:
    state = states.shop()
    with running_stub(state.value) as server:
        shown(page, server)
        before = page.run(PLACES)
        page.run("document.querySelector('.card').isTheSame = true")
        state.app("gamma", "aaa", "10.0.3.1", 80)  # would come first
        state.value["flows"][0]["rate"] = 999.0
        server.change(state.value)
        page.wait_for("document.querySelector('.card[data-key=\"gamma/aaa\"]')")
        after = page.run(PLACES)
        assert {key: after[key] for key in before} == before
        assert page.run("document.querySelector('.card').isTheSame"), "cards are made anew"
        page.reload()
        page.wait_for("document.querySelectorAll('.card').length")
        assert page.run(PLACES) == after
        page.click("#tidy")
        page.wait_for(f"JSON.stringify({PLACES}) !== JSON.stringify({after!r})".replace("'", '"'))


def test_hundreds_of_clients_of_one_service_stay_readable(page: Page) -> None:
    with running_stub(states.hub(500).value) as server:
        shown(page, server)
        assert page.run(NAMES) == ["db", "worker-*"]
        assert page.run("document.querySelectorAll('#map *').length") < 100
        assert page.run("document.querySelector('.label text').textContent") == "250/s"
        page.click(".card.client")
        page.wait_for("document.querySelectorAll('.members button').length === 100")
        server.answers["/api/app/n1/2"] = {"app": {}, "siblings": [], "services": [], "clients": []}
        page.click(".members button")
        page.wait_for("document.querySelector('#panel h2').textContent === 'worker-000'")
        assert page.run("document.querySelector('.card.client').classList.contains('chosen')")


HOSTILE = [
    "<script>document.title='mine'</script>",
    '"><img src=x onerror=document.title="mine">',
    "x" * 5000,
    "\u202egnp.exe\u0007",
    "שלום עולם, مرحبا بالعالم",
    "</text></svg><h1>hello</h1>",
    "javascript:alert(1)",
]


def test_hostile_names_are_texts_only(page: Page) -> None:
    state = states.State("n1", "<b>n2</b>")
    for number, name in enumerate(HOSTILE):
        app = state.app("n1", name, f"10.0.0.{number + 1}", 80, tags=(f"k={name}",), command=[name])
        state.flow(app, states.outside("203.0.113.9", name), 80, "tcp", rate=1.0)
        state.deny(app, app, 80, rule=name)
    for view in ("", "?view=table"):
        with running_stub(state.value) as server:
            shown(page, server, view)
            kinds = ".card.service" if not view else "#tables button.link"
            for number in range(len(HOSTILE)):
                click = "dispatchEvent(new MouseEvent('click', {bubbles: true}))"
                page.run(f"document.querySelectorAll('{kinds}')[{number}].{click}")
                page.wait_for("!document.querySelector('#panel').hidden")
            for name in HOSTILE:
                server.tell(
                    {"kind": "deny", "name": name, "server_name": name, "address": name, "rule": name, "errno": name}
                )
            page.wait_for(f"document.querySelectorAll('#log tr').length === {len(HOSTILE)}")
            strangers = "body script, body img:not([src='static/icon.svg']), body h1 ~ h1, b"
            assert page.run(f'document.querySelectorAll("{strangers}").length') == 0
            assert page.run("document.title") == "AppSwitch: n1"
            assert page.run("!document.body.innerText.includes('\\u202e')")
            wide = "[document.documentElement.scrollWidth, innerWidth]"
            width, window = page.run(wide)
            assert width <= window, "a name makes the page wide"
    page.complaints.clear()  # the stub knows no /api/app


def test_a_click_shows_who_may_reach_it_and_why(page: Page) -> None:
    state = states.shop()
    row = {"node": "alpha", "ip": "10.1.0.2", "port": 5432, "proto": "tcp", "app": 4}
    clients = [
        {**row, "name": "probe", "allowed": False, "rule": "grp", "reason": "no grp value in common"},
        {**row, "name": "cart", "allowed": True, "rule": "grp", "reason": "grp=back"},
        {**row, "name": "cart", "allowed": True, "rule": "grp", "reason": "grp=back"},
    ]
    with running_stub(state.value) as server:
        database = next(app for app in state.value["apps"] if app["name"] == "db")
        services = [service for service in state.value["services"] if service["name"] == "db"]
        answer: dict[str, Any] = {"app": database, "siblings": [], "services": services, "clients": clients}
        server.answers[f"/api/app/beta/{database['id']}"] = answer
        server.answers["/api/why"] = WHY
        shown(page, server)
        page.click('.card[data-key^="beta/db"]')
        page.wait_for("document.querySelector('#may-reach tbody tr')")
        rows = page.run("[...document.querySelectorAll('#may-reach tbody tr')].map((row) => row.innerText)")
        assert len(rows) == 2
        assert all(word in rows[0] for word in ("cart \N{MULTIPLICATION SIGN}2", "allow", "grp=back"))
        assert all(word in rows[1] for word in ("probe", "@alpha", "5432", "deny", "no grp value in common"))
        text = page.run("document.querySelector('#panel').innerText")
        assert all(word in text for word in ("10.0.0.9", "env=prod grp=back", f"beta/{database['id']}", "postgres"))
        page.reload()  # the URL says which
        page.wait_for("document.querySelector('#may-reach tbody tr')")

        page.click("#panel button.kind.denied")
        page.wait_for("document.querySelector('#why')?.innerText.includes('tests stay out')")
        assert any("client=alpha%2F4" in path and "dest=10.0.0.9%3A5432" in path for path in server.asked)
        page.press("Escape")
        page.wait_for("document.querySelector('#panel').hidden")


def test_the_keyboard_is_enough(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        server.answers["/api/app/alpha/1"] = {"app": {}, "siblings": [], "services": [{}], "clients": []}
        shown(page, server)
        page.run("document.querySelector('#tidy').focus()")
        page.press("Tab")
        assert page.run("document.querySelectorAll('.card[tabindex=\"0\"]').length") == 1
        page.wait_for("document.activeElement.classList.contains('card')")
        page.run("document.querySelector('.card[data-key^=\"alpha/probe\"]').focus()")
        page.press("ArrowRight")
        page.wait_for("document.activeElement.dataset.key.startsWith('alpha/web')")
        assert "service on alpha, 2 instances: 42.8/s in" in page.run(
            "document.activeElement.getAttribute('aria-label')"
        )
        page.press("Enter")
        page.wait_for("document.activeElement.id === 'panel'")
        page.press("Escape")
        page.wait_for("document.activeElement.dataset.key.startsWith('alpha/web')")
        page.press("ArrowDown")
        page.wait_for("document.activeElement.dataset.key.startsWith('beta/')")


def test_the_same_as_tables(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        shown(page, server)
        page.run("document.querySelector('#skip').focus()")
        page.press("Enter")
        page.wait_for("location.search === '?view=table'")
        rows = page.run(
            "[...document.querySelectorAll('#table-edges tbody tr')].map((row) => row.innerText.split('\\t'))"
        )
        assert rows[0] == ["probe", "cache", "denied", "1", "0.2/s", "0", "grp"]
        assert ["web", "cart", "unix", "800", "12.3/s", "2", ""] in rows
        apps = page.run(
            "[...document.querySelectorAll('#table-apps tbody tr')].map((row) => row.innerText.split('\\t'))"
        )
        assert [
            "web",
            "service",
            "alpha",
            "10.0.0.1 :80 :443",
            "env=prod grp=front",
            "2",
            "up",
            "42.8/s",
            "15.4/s",
        ] in apps
        assert page.run("getComputedStyle(document.querySelector('#picture')).display") == "none"


def test_flows_as_they_happen(page: Page) -> None:
    event = {
        "time": "2026-11-28T08:00:00Z",
        "kind": "connect",
        "node": "alpha",
        "app": 1,
        "app_node": "alpha",
        "name": "web",
    }
    event |= {
        "server_app": 1,
        "server_node": "beta",
        "server_name": "login",
        "port": 8080,
        "proto": "tcp",
        "medium": "tcp",
    }
    lines = """[...document.querySelectorAll('#log tr')].map((row) =>
        [...row.cells].slice(1).map((cell) => cell.textContent).join(' | '))"""
    with running_stub(states.shop().value) as server:
        shown(page, server)
        for _ in range(3):
            server.tell(event)
        server.tell(
            {**event, "kind": "deny", "rule": "grp", "errno": "ECONNREFUSED", "medium": None, "name": "probe", "app": 4}
        )
        server.tell({**event, "kind": "listen"})  # no flow
        page.wait_for("document.querySelectorAll('#log tr').length === 2")
        assert page.run(lines) == [
            "probe @alpha | login @beta | 8080 |  | denied (by grp, ECONNREFUSED) | 1",
            "web @alpha | login @beta | 8080 | tcp | allowed | 3",
        ]
        page.click("#pause")
        server.tell(event)
        page.click("input[name=name]")
        page.type("probe")
        page.click("#pause")
        page.wait_for(f"{lines}.length === 1 && {lines}[0].startsWith('probe')")
        page.click("#clear")
        page.wait_for(f"{lines}[0] === 'web @alpha | login @beta | 8080 | tcp | allowed | 4'")


def test_a_flood_of_flows_is_bounded(page: Page) -> None:
    with running_stub(states.shop().value) as server:
        shown(page, server)
        for number in range(3000):
            server.tell({"kind": "connect", "node": "alpha", "name": f"c{number}", "server_name": "web", "port": 80})
        page.wait_for("document.querySelector('#log td:nth-child(2)')?.textContent === 'c2999 @alpha'")
        assert page.run("document.querySelectorAll('#log tr').length") == 200


def test_a_server_that_goes_is_seen_and_its_return_too(page: Page) -> None:
    state = states.shop()
    with running_stub(state.value) as server:
        shown(page, server)
        port = server.server_address[1]
        cards = page.run(NAMES)
        server.stop()
        page.wait_for("document.querySelector('#health').dataset.is === 'stale'")
        assert page.run("document.querySelector('#health').innerText").startswith("stale: no answer, last heard")
        assert page.run("getComputedStyle(document.querySelector('#map')).filter") != "none"
        assert page.run(NAMES) == cards
    state.app("alpha", "later", "10.0.3.3", 80)
    with running_stub(state.value, port) as server:
        page.wait_for("document.querySelector('#health').dataset.is === 'live'")
        page.wait_for("document.querySelector('.card[data-key=\"alpha/later\"]')")
        eventually(lambda: server.streams)
        server.tell({"kind": "connect", "node": "alpha", "name": "later", "server_name": "web", "port": 80})
        page.wait_for("document.querySelectorAll('#log tr').length === 1")


def test_no_apps_yet_says_how_to_start_one(page: Page) -> None:
    with running_stub(states.State("n1").value) as server:
        shown(page, server)
        page.wait_for("document.querySelector('#empty').innerText.includes('appswitch spawn')")
