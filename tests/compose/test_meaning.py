"""What is written -> what is meant."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.compose.describe import described
from appswitch.compose.document import written
from appswitch.compose.project import Check, Dependency, Listens, Restart, Service, plain_name, select
from appswitch.errors import AppSwitchError
from appswitch.host import processes
from tests.compose.files import DIRECTORY, refused, understood


def service(line: str = "", environment: dict[str, str] | None = None, files: dict[str, str] | None = None) -> Service:
    """The service web, with one more line."""
    text = f"services:\n  web:\n    command: run it\n    {line}\n  db:\n    command: db\n"
    return understood(text, environment, files).services["web"]


def wrong(line: str) -> str:
    said = refused(f"services:\n  web:\n    command: run it\n    {line}\n  db:\n    command: db\n")
    assert said.startswith("c.yaml:4: services.web."), said
    return said.removeprefix("c.yaml:4: services.web.")


def test_defaults() -> None:
    assert service() == Service("web", ("run", "it"), DIRECTORY)


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("a 'b c' \"d\"", ("a", "b c", "d")),
        ("[a, b c, '']", ("a", "b c", "")),
        ("echo $$HOME | x", ("echo", "$HOME", "|", "x")),
    ],
)
def test_command(written: str, command: tuple[str, ...]) -> None:
    assert understood(f"services: {{web: {{command: {written}}}}}").services["web"].command == command


@pytest.mark.parametrize("written", ["''", "[]", "['']", '"a \'b"', '"a\\0b"'])
def test_no_command(written: str) -> None:
    assert refused(f"services: {{web: {{command: {written}}}}}").startswith("c.yaml:1: services.web.command: ")


@pytest.mark.parametrize(
    "line",
    [
        "environment: {A: 1, B: , C: , D: ''}",
        "environment: [A=1, B, C, D=]",
        "env_file: v",
        "env_file: [u, {path: v}, {path: none, required: false}]",
        "{env_file: [u], environment: {A: 1, D: ''}}",
    ],
)
def test_variables(line: str) -> None:
    files = {"/srv/shop/v": "A=1\nB\nC\nD=\n", "/srv/shop/u": "A=2\nB=host\n"}
    if line.startswith("{"):
        line = "env_file: [u]\n    environment: {A: 1, D: ''}"
    assert service(line, {"B": "host"}, files).environment == {"A": "1", "B": "host", "D": ""}


def test_raw_files_of_variables() -> None:
    assert service("env_file: [{path: v, format: raw}]", {}, {"/srv/shop/v": "A='$x'"}).environment == {"A": "'$x'"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("env_file: none", "env_file: there is no file /srv/shop/none"),
        ("environment: [=a]", "environment: not a variable: ''"),
        ("user: a:b", "user: a group can't be named"),
        ("restart: never", "restart: 'never' is no way to restart"),
        ("restart: on-failure:0", "restart: 'on-failure:0' is no way"),
        ("stop_signal: SIGFOO", "stop_signal: 'SIGFOO' is no signal"),
        ("stop_signal: 0", "stop_signal: '0' is no signal"),
        ("stop_signal: SIGWINCH", "stop_signal: SIGWINCH isn't passed on"),
        ("stop_grace_period: '10'", "stop_grace_period: '10' is no time"),
        ("stop_grace_period: 1x", "stop_grace_period: '1x' is no time"),
        ("stop_grace_period: -1s", "stop_grace_period: '-1s' is no time"),
        ("healthcheck: {test: []}", "healthcheck.test: it can't be read"),
        ("healthcheck: {test: [CMD]}", "healthcheck.test: it can't be read"),
        ("healthcheck: {test: [curl, x]}", "healthcheck.test: it can't be read"),
        ("healthcheck: {test: x, interval: 0s}", "healthcheck.interval: it has to be longer"),
        ("expose: [0]", "expose.0: '0' is no port"),
        ("ports: [80, 70000:1]", "ports.1: '70000' is no port"),
        ("ports: [53:53/udp]", "ports.0: gateways let in TCP only"),
        ("ports: [8000-8010:80]", "ports.0: '8000-8010' is no port"),
        ("ports: ['127.0.0.1:80:80']", "ports.0: '127.0.0.1:80:80' is no port"),
        ("depends_on: [nobody]", "depends_on.nobody: there is no service nobody"),
        ("depends_on: [web]", "depends_on: it waits for itself: web -> web"),
    ],
)
def test_what_makes_no_sense(line: str, message: str) -> None:
    assert wrong(line).startswith(message)


def test_scale_is_said_once() -> None:
    assert service("scale: 3").scale == 3
    assert service("deploy: {replicas: 0}").scale == 0
    assert service("scale: 2\n    deploy: {replicas: 2}").scale == 2
    assert "deploy.replicas says 3" in refused("services: {web: {command: x, scale: 2, deploy: {replicas: 3}}}")


@pytest.mark.parametrize(
    ("written", "restart"),
    [
        ("no", Restart()),
        ("always", Restart(True, True)),
        ("unless-stopped", Restart(True, True)),
        ("on-failure", Restart(False, True)),
        ("on-failure:3", Restart(False, True, 3)),
    ],
)
def test_restart(written: str, restart: Restart) -> None:
    assert service(f"restart: {written}").restart == restart


@pytest.mark.parametrize(("written", "number"), [("SIGQUIT", 3), ("quit", 3), ("15", 15), ("2", 2), ("SIGKILL", 9)])
def test_stop_signal(written: str, number: int) -> None:
    assert service(f"stop_signal: {written}").stop_signal == number


def test_signals_that_spawn_keeps_to_itself_are_those() -> None:
    """Of a program's own faults nobody is stopped by; SIGKILL is done otherwise."""
    for number in signal.Signals:
        if number in processes.NOT_PASSED_ON and number.name not in (
            "SIGKILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"
        ):  # fmt: skip
            assert "isn't passed on" in wrong(f"stop_signal: {number.name}")


@pytest.mark.parametrize(
    ("written", "seconds"), [("1m30s", 90), ("1.5s", 1.5), ("250ms", 0.25), ("2h", 7200), ("5us", 5e-6)]
)
def test_times(written: str, seconds: float) -> None:
    assert service(f"stop_grace_period: {written}").grace == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("line", "health"),
    [
        ("healthcheck: {interval: 5s}", Listens()),
        ("healthcheck: {disable: true}", None),
        ("healthcheck: {test: [NONE]}", None),
        ("healthcheck: {test: a b}", Check(("/bin/sh", "-c", "a b"))),
        ("healthcheck: {test: [CMD-SHELL, a b]}", Check(("/bin/sh", "-c", "a b"))),
        (
            "healthcheck: {test: [CMD, a, b], interval: 500ms, timeout: 2s, retries: 5, start_period: 1m}",
            Check(("a", "b"), 0.5, 2, 5, 60, start_interval=0.5),
        ),
        (
            "expose: [80, '53/udp']\n    ports: ['8443:443']",
            Listens(frozenset({(80, "tcp"), (53, "udp"), (443, "tcp")})),
        ),
    ],
)
def test_health(line: str, health: Check | Listens | None) -> None:
    assert service(line).health == health


@pytest.mark.parametrize(
    ("written", "published"),
    [
        ("80", "80"),
        ("'8080:80'", "80:8080"),
        ("8080:80/tcp", "80:8080"),
        ("{target: 80, published: 8080}", "80:8080"),
        ("{target: '53', published: '5353', protocol: tcp}", "53:5353"),
    ],
)
def test_ports_are_what_spawn_exposes(written: str, published: str) -> None:
    assert service(f"ports: [{written}]").published == (published,)


def test_ours() -> None:
    line = (
        "x-appswitch: {ip: 10.0.0.1, tags: {grp: back, n: 1}, node: b, netns: false, tcp: true, exclusive: true, "
        "bypass: [10.0.0.0/8]}"
    )
    web = service(line)
    assert (web.ip, web.tags, web.node) == ("10.0.0.1", ("grp=back", "n=1"), "b")
    assert (web.netns, web.tcp, web.exclusive, web.bypasses) == (False, True, True, ("10.0.0.0/8",))
    assert service("x-appswitch: {tags: [grp=a, grp=b]}").tags == ("grp=a", "grp=b")
    assert understood("x-appswitch: {policy: p.toml}\nservices: {}").policy == DIRECTORY / "p.toml"


def test_places_are_relative_to_the_file() -> None:
    assert service("working_dir: sub").directory == DIRECTORY / "sub"
    assert service("working_dir: /else").directory == Path("/else")


CHAIN = """
services:
  web: {command: x, depends_on: {app: {condition: service_healthy}}}
  app: {command: x, depends_on: [db, cache]}
  db: {command: x}
  cache: {command: x, profiles: [fast], scale: 2}
  tool: {command: x, profiles: [tools], depends_on: {other: {required: false}}}
"""


def chosen(*names: str, profiles: tuple[str, ...] = (), **scales: int) -> list[str]:
    return list(select(understood(CHAIN), names, profiles, scales).services)


def test_dependencies() -> None:
    services = understood(CHAIN).services
    assert services["web"].dependencies == (Dependency("app", "service_healthy"),)
    assert services["app"].dependencies == (Dependency("db"), Dependency("cache"))


@pytest.mark.parametrize(
    ("depends", "message"),
    [
        ("b: {command: x, healthcheck: {disable: true}}", "b is disabled: it never becomes healthy"),
        ("b: {command: x, depends_on: [c]}\n  c: {command: x, depends_on: [b]}", "b waits"),
    ],
)
def test_conditions_that_can_t_come_true(depends: str, message: str) -> None:
    said = refused(f"services:\n  a: {{command: x, depends_on: {{b: {{condition: service_healthy}}}}}}\n  {depends}\n")
    assert message in said or "it waits for itself: b -> c -> b" in said


def test_what_ends_on_another_node_isn_t_known() -> None:
    text = "services:\n  a: {command: x, depends_on: {b: {condition: service_completed_successfully}}}\n"
    assert "b is run on node n" in refused(text + "  b: {command: x, x-appswitch: {node: n}}\n")


def test_profiles() -> None:
    assert chosen(profiles=("fast",)) == ["web", "app", "db", "cache"]
    assert chosen(profiles=("*",)) == ["web", "app", "db", "cache", "tool"]
    assert chosen("db") == ["db"]
    assert chosen("app", profiles=("fast",)) == ["app", "db", "cache"]
    assert chosen("tool") == ["tool"]
    assert chosen("app", "cache") == ["app", "db", "cache"]
    with pytest.raises(AppSwitchError, match="app depends on cache, which no active profile has"):
        chosen()


def test_scales() -> None:
    project = select(understood(CHAIN), (), ("fast",), {"web": 3})
    assert [each.scale for each in project.services.values()] == [3, 1, 1, 2]
    for names, scales in ((("none",), {}), ((), {"none": 1})):
        with pytest.raises(AppSwitchError, match="no service none"):
            select(understood(CHAIN), names, (), scales)


def test_names_of_projects() -> None:
    assert plain_name("My Shop.v2") == "myshopv2"
    assert understood("name: other\nservices: {}").name == "other"


FULL = """
name: shop
services:
  web:
    command: [serve, "a $$b"]
    environment: {A: $$x, B: ''}
    working_dir: sub
    user: nobody
    depends_on: {db: {condition: service_healthy, required: false, restart: true}}
    healthcheck: {test: [CMD, ask, $$y], interval: 5s, start_period: 1m}
    restart: on-failure:3
    stop_signal: SIGQUIT
    stop_grace_period: 1m
    scale: 2
    profiles: [p]
    ports: ["8080:80", 53]
    labels: {l: m}
    x-appswitch: {ip: 10.0.0.1, tags: [grp=a], node: n, netns: false, tcp: true, exclusive: true,
      bypass: ['*.x.example:80']}
  db: {command: db, expose: [5432, 53/udp], healthcheck: {interval: 1s}}
  job: {command: job, healthcheck: {disable: true}}
x-appswitch: {policy: p.toml, egress: true}
"""


def test_config_means_the_same() -> None:
    project = understood(FULL)
    again = understood(written(described(project)))
    assert again.services == project.services
    assert (again.name, again.policy, again.egress) == (project.name, project.policy, True)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1).filter(lambda w: w[0] != "")
)
@example(["0E0", "0o7", "1_0", "no", "22:22", "~", "<<", "2001-01-01", "="])
def test_config_means_the_same_whatever_the_words(words: list[str]) -> None:
    text = written({"services": {"web": {"command": [each.replace("$", "$$") for each in words]}}})
    project = understood(text)
    assert project.services["web"].command == tuple(words)
    assert understood(written(described(project))).services == project.services
