"""`appswitch compose`: real programs, started in order, watched, and stopped with nothing left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, Switch, eventually, has_ended, running_switch

PYTHON = "/usr/bin/python3"
REDIS = "redis-server --save '' --protected-mode no"


class Compose:
    """A project in a directory, under a trap handler of the tests' own (or none yet)."""

    def __init__(self, switch: Switch, directory: Path) -> None:
        self.switch = switch
        self.directory = directory
        self.file = directory / "compose.yaml"
        self._started: list[subprocess.Popen[str]] = []

    def write(self, text: str) -> None:
        self.file.write_text(re.sub(r"PYTHON\b", PYTHON, text).replace("REDIS", REDIS))

    def run(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.switch.command("compose", *arguments, check=check, cwd=self.directory, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """In the foreground; its output is a pipe."""
        process = subprocess.Popen(
            [*self.switch.appswitch, "compose", *arguments], cwd=self.directory, env=self.switch.environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
        )  # fmt: skip
        self._started.append(process)
        return process

    def ps(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {row["name"]: row for row in json.loads(self.run("ps", "--json").stdout)}

    def apps(self) -> list[str]:
        """Who runs, as the trap handler knows."""
        return sorted(row["name"] for row in self.switch.rows("ps"))

    def nothing_is_left(self) -> bool:
        """At once; the trap handler hears of it a moment later."""
        if (self.switch.directory / "compose").exists():
            return False
        eventually(lambda: not self.apps())
        return True

    def close(self) -> None:
        if self.file.exists():
            self.run("down", "--kill", check=False)
        for process in self._started:
            with suppress(ProcessLookupError):
                process.kill()
            if process.stdout and not process.stdout.closed:
                process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What a process says up to a line with this text."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"it never said {text!r}, but {said}")


@pytest.fixture
def compose(switch: Switch) -> Iterator[Compose]:
    directory = switch.directory / "project"  # which any user may read
    directory.mkdir()
    made = Compose(switch, directory)
    yield made
    made.close()


SHOP = """
name: shop
services:
  web:
    command: PYTHON -u -m http.server 80
    depends_on: {cache: {condition: service_healthy}}
  cache:
    command: REDIS
  job:
    command: sh -c "curl -sS http://web/compose.yaml; redis-cli -h cache set k v"
    healthcheck: {disable: true}
    depends_on: {web: {condition: service_healthy}}
"""


@pytest.mark.program("redis-server", "redis-cli", "curl")
def test_in_the_background(compose: Compose) -> None:
    compose.write(SHOP)
    done = compose.run("up", "-d", "--wait")
    assert (done.stdout, "project shop is up" in done.stderr) == ("", True)
    states = {"web-1": "healthy", "cache-1": "healthy", "job-1": "exited"}
    eventually(lambda: {name: row["state"] for name, row in compose.ps().items()} == states)
    rows = compose.ps()
    assert (rows["web-1"]["listens"], rows["cache-1"]["listens"]) == (["80/tcp"], ["6379/tcp"])
    assert "redis-server" in Path(f"/proc/{rows['cache-1']['pid']}/cmdline").read_text()
    assert rows["job-1"]["status"] == 0
    assert compose.switch.run("redis-cli", "-h", "cache", "get", "k").stdout == "v\n"
    assert {tuple(row["tags"]) for row in compose.switch.rows("ps")} == {("project=shop",)}
    logs = compose.run("logs").stdout
    assert "job-1   | name: shop\n" in logs
    assert "cache-1 | " in logs
    assert compose.run("logs", "-n", "2", "job").stdout == "job-1   | OK\njob-1 exited with status 0\n"
    compose.run("down")
    assert compose.nothing_is_left()
    assert "isn't up" in compose.run("down").stderr
    assert "isn't up" in compose.run("ps", check=False).stderr


@pytest.mark.program("redis-server", "redis-cli")
def test_by_the_projects_name_from_anywhere(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> None:
    compose.write(SHOP)
    compose.run("up", "-d", "--wait", "-p", "other", "cache")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for arguments in (["ps", "-p", "other"], ["-p", "other", "logs"]):
        assert "cache-1" in compose.switch.command("compose", *arguments, cwd=elsewhere).stdout
    compose.switch.command("compose", "down", "-p", "other", cwd=elsewhere)
    assert compose.nothing_is_left()


UP = """
name: shop
services:
  web: {command: PYTHON -m http.server 80, scale: 2, environment: {A: "1"}}
  cache: {command: REDIS}
  job: {command: "echo done", healthcheck: {disable: true}}
"""


def pids(compose: Compose) -> dict[str, int]:
    return {name: row["pid"] for name, row in compose.ps().items() if row["pid"]}


@pytest.mark.program("redis-server", "redis-cli")
def test_up_again_starts_what_is_missing_and_anew_what_has_changed(compose: Compose) -> None:
    compose.write(UP)
    compose.run("up", "-d", "--wait")
    first = pids(compose)
    said = compose.run("up", "-d", "--wait").stderr
    assert "web-1 is as it was" in said
    assert "job-1 started" in said
    assert pids(compose) == first
    compose.write(UP.replace('A: "1"', 'A: "2"').replace("job:", "other:").replace("echo done", "sleep 1000"))
    said = compose.run("up", "-d", "--wait", "--scale", "web=1").stderr
    for each in (
        "web-1 started anew",
        "web-2 stopped",
        "cache-1 is as it was",
        "other-1 started",
        "job isn't in the file",
    ):
        assert each in said
    second = pids(compose)
    assert second["cache-1"] == first["cache-1"]
    assert second["web-1"] != first["web-1"]
    assert set(second) == {"cache-1", "web-1", "other-1"}
    assert "A=2" in Path(f"/proc/{second['web-1']}/environ").read_text().split("\0")
    os.kill(second["cache-1"], signal.SIGKILL)
    eventually(lambda: compose.ps()["cache-1"]["state"] == "exited")
    assert "cache-1 started" in compose.run("up", "-d", "--wait", "cache", "--remove-orphans").stderr
    assert compose.switch.run("redis-cli", "-h", "cache", "ping").stdout == "PONG\n"
    assert set(compose.ps()) == {"cache-1", "web-1", "other-1"}, "what the file has, stays, though it isn't named"
    compose.run("down")
    assert compose.nothing_is_left()


def test_up_again_that_fails_stops_nothing(compose: Compose) -> None:
    compose.write(UP)
    compose.run("up", "-d", "--wait")
    first = pids(compose)
    bad = "  bad: {command: sh -c 'exit 3'}\n  late: {command: x, depends_on: {bad: {condition: service_healthy}}}\n"
    compose.write(UP + bad)
    failed = compose.run("up", "-d", "--wait", check=False)
    assert failed.returncode == 1
    assert "bad-1 has ended with status 3; late-1 can't start: bad-1 has ended with status 3" in failed.stderr
    compose.write(UP + "  mute: {command: sleep 1000}\n")
    failed = compose.run("up", "-d", "--wait", "--wait-timeout", "0.5", check=False)
    assert "not ready after 0.5 s: mute-1" in failed.stderr
    compose.write(UP + "x-appswitch: {egress: true}\n")
    assert "x-appswitch.egress is of the trap handler" in compose.run("up", "-d", check=False).stderr
    assert first.items() <= pids(compose).items()


def test_up_again_in_the_foreground_shows_all_and_ctrl_c_stops_all(compose: Compose) -> None:
    compose.write(UP)
    compose.run("up", "-d", "--wait")
    process = compose.start("up")
    assert "web-1 is as it was" in read_until(process, "project shop is up")
    assert compose.switch.run(PYTHON, "-c", "import urllib.request as u; u.urlopen('http://web/')").returncode == 0
    read_until(process, "GET / HTTP")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[0]
    assert "cache-1 exited with status 0" in said
    assert process.returncode == 130
    assert compose.nothing_is_left()


def test_several_files(compose: Compose) -> None:
    compose.write(UP)
    override = compose.directory / "more.yaml"
    override.write_text(
        "services:\n  web: {scale: 1, environment: [B=3]}\n  extra: {command: sleep 1000, profiles: [x]}\n"
    )
    compose.run("-f", "compose.yaml", "-f", "more.yaml", "up", "-d", "--wait")
    environment = Path(f"/proc/{pids(compose)['web-1']}/environ").read_text().split("\0")
    assert {"A=1", "B=3"} <= set(environment)
    assert set(compose.ps()) == {"web-1", "cache-1", "job-1"}
    override.write_text("services:\n  web:\n    sale: 1\n")
    failed = compose.run("-f", "compose.yaml", "-f", "more.yaml", "config", check=False)
    assert "more.yaml:3: services.web.sale: the key sale isn't known here" in failed.stderr


def test_an_override_is_found_and_so_is_a_file_above(compose: Compose) -> None:
    compose.write(UP)
    (compose.directory / "compose.override.yaml").write_text("services: {web: {command: mine}}\n")
    below = compose.directory / "a" / "b"
    below.mkdir(parents=True)

    def command(**environment: str) -> str:
        done = compose.switch.command(
            "compose", "config", "--json", cwd=below, env={**compose.switch.environment, **environment}
        )
        return str(json.loads(done.stdout)["services"]["web"]["command"][0])

    assert command() == "mine"
    assert command(COMPOSE_FILE=str(compose.file)) == PYTHON


def test_profiles(compose: Compose) -> None:
    compose.write(UP + "  debug: {command: sleep 1000, profiles: [debug], healthcheck: {disable: true}}\n")
    compose.run("up", "-d", "--wait")
    assert "debug-1" not in compose.ps()
    compose.run("--profile", "debug", "up", "-d", "--wait")
    assert compose.ps()["debug-1"]["state"] == "running"


def test_all_of_it_is_another_nodes(compose: Compose) -> None:
    compose.write("services: {web: {command: PYTHON -m http.server 80, x-appswitch: {node: b}}}")
    for flags in ([], ["-d"]):
        failed = compose.run("up", *flags, check=False)
        assert failed.returncode == 1
        assert "this is node n1, and all of project project is run by others: b" in failed.stderr
        assert "hint: run `appswitch compose up` on b" in failed.stderr
    assert compose.nothing_is_left()


SLOW_TO_END = """
import signal, sys, time
def end(*_): print("ending", flush=True); time.sleep(0.3); print("ended", flush=True); sys.exit(0)
signal.signal(signal.SIGTERM, end)
import socket; s = socket.create_server(("", 80)); print("serves", flush=True)
while True: time.sleep(100)
"""
CHAIN = f"""
x-program: &program
  command: [PYTHON, -c, {json.dumps(SLOW_TO_END)}]
services:
  web: {{<<: *program, depends_on: {{app: {{condition: service_healthy}}}}}}
  app: {{<<: *program, depends_on: {{db: {{condition: service_healthy}}}}}}
  db: {{<<: *program}}
"""


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "down"])
def test_in_the_foreground_all_ends_in_the_reverse_order(compose: Compose, how: str) -> None:
    compose.write(CHAIN)
    process = compose.start("up", start_new_session=True)
    started = read_until(process, "web-1 | serves")
    assert re.findall(r"(\w+)-1 \| serves", started.replace("  |", " |")) == ["db", "app", "web"]
    eventually(lambda: compose.ps()["web-1"]["state"] == "healthy")
    if how == "down":
        compose.run("down")
        assert compose.nothing_is_left()
    elif how == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    else:
        process.terminate()
    ended, _ = process.communicate(timeout=PATIENCE)
    said = re.findall(r"(\w+)-1 +\| (ending|ended)", ended)
    assert said == [(name, word) for name in ("web", "app", "db") for word in ("ending", "ended")]
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143, "down": 0}[how]
    assert compose.nothing_is_left()


DEAF = """
services:
  deaf:
    command: PYTHON -u -c "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1); time.sleep(99)"
    stop_grace_period: 1h
    healthcheck: {disable: true}
"""


def test_a_second_ctrl_c_kills(compose: Compose) -> None:
    compose.write(DEAF)
    process = compose.start("up")
    read_until(process, "deaf-1 | 1")
    process.send_signal(signal.SIGINT)
    read_until(process, "a second Ctrl-C kills")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert "deaf-1 exited with status 137" in said
    assert process.returncode == 130
    assert compose.nothing_is_left()


def test_who_doesn_t_end_in_time_is_killed(compose: Compose) -> None:
    compose.write(DEAF.replace("1h", "200ms"))
    process = compose.start("up")
    read_until(process, "deaf-1 | 1")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert "deaf-1 is killed: it hasn't ended 0.2 s after it was told to" in said
    assert "deaf-1 exited with status 137" in said


def test_the_signal_to_stop(compose: Compose) -> None:
    compose.write("""
services:
  one:
    command: sh -c 'trap "echo bye; exit 5" USR1; echo ready; while :; do sleep 0.05; done'
    stop_signal: SIGUSR1
    healthcheck: {disable: true}
""")
    process = compose.start("up")
    read_until(process, "ready")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert "one-1 | bye\none-1 exited with status 5\n" in said


FAILS = """
services:
  db: {command: REDIS}
  web:
    command: sh -c 'echo something is wrong; exit 3'
    depends_on: {db: {condition: service_healthy}}
"""


@pytest.mark.program("redis-server")
@pytest.mark.parametrize("flags", [[], ["--wait"]], ids=["foreground", "wait"])
def test_a_program_that_fails_as_it_starts(compose: Compose, flags: list[str]) -> None:
    compose.write(FAILS)
    done = compose.run("up", *flags, check=False)
    assert done.returncode == 1
    assert "web-1 has ended with status 3 as it started" in done.stderr
    assert "web-1 | something is wrong" in done.stdout + done.stderr
    assert compose.nothing_is_left()


@pytest.mark.parametrize(
    ("command", "status"), [("no-such-program", 127), ("/etc/passwd", 126), ("'true'", None), ("'false'", 1)]
)
def test_exit_status(compose: Compose, command: str, status: int | None) -> None:
    compose.write(f"services: {{one: {{command: {command}, healthcheck: {{disable: true}}}}}}")
    done = compose.run("up", check=False)
    assert done.returncode == (1 if status else 0)
    if status:
        assert f"one-1 has ended with status {status} as it started" in done.stderr


def test_a_directory_that_isn_t_there(compose: Compose) -> None:
    compose.write("services: {one: {command: 'true', working_dir: none}}")
    done = compose.run("up", check=False)
    assert done.returncode == 1
    assert f"can't be started: No such file or directory: {compose.directory}/none" in done.stdout


def test_who_is_never_ready(compose: Compose) -> None:
    compose.write("services: {one: {command: sleep 100}, two: {command: sleep 100, healthcheck: {disable: true}}}")
    done = compose.run("up", "--wait", "--wait-timeout", "1", check=False)
    assert done.returncode == 1
    assert "not ready after 1 s: one-1" in done.stderr
    assert compose.nothing_is_left()


def test_ctrl_c_while_it_waits(compose: Compose) -> None:
    compose.write("services: {one: {command: sleep 100}}")
    process = compose.start("up", "--wait", start_new_session=True)
    eventually(lambda: compose.apps() == ["one"])
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert compose.nothing_is_left()


@pytest.mark.parametrize("flags", [["up"], ["up", "-d"]], ids=["foreground", "background"])
def test_a_killed_supervisor_takes_all_along(compose: Compose, flags: list[str]) -> None:
    """With children and grandchildren; the next `up` finds nothing in its way."""
    compose.write(f"""
services:
  one:
    command: [sh, -c, "setsid sh -c 'trap : TERM; sleep 100' & sleep 100 & echo ready; wait"]
    healthcheck: {{disable: true}}
  web:
    command: {PYTHON} -m http.server 80
""")
    process = compose.start(*flags)
    if flags == ["up"]:
        read_until(process, "ready")
    else:
        process.communicate(timeout=PATIENCE)
    eventually(lambda: compose.ps()["web-1"]["state"] == "healthy")
    supervisor = parent_of(parent_of(parent_of(compose.ps()["web-1"]["pid"])))
    programs = [row["pid"] for row in compose.ps().values()]
    os.kill(supervisor, signal.SIGKILL)
    for pid in programs:
        eventually(lambda each=pid: has_ended(each))
    eventually(lambda: compose.apps() == [])
    assert "isn't up" in compose.run("ps", check=False).stderr
    compose.run("up", "--wait")
    compose.run("down")
    assert compose.nothing_is_left()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_scale_and_healthy_instances(compose: Compose) -> None:
    """All take port 80; a client meets all of them."""
    compose.write("""
services:
  web: {command: "PYTHON -u -m http.server 80", scale: 2, labels: {any: thing}, x-team: mine}
""")
    compose.run("up", "--wait", "--scale", "web=3")
    assert [row["listens"] for row in compose.ps().values()] == [["80/tcp"]] * 3
    ask = "import urllib.request as u; [u.urlopen('http://web/', timeout=20).read() for _ in range(9)]"
    compose.switch.run(PYTHON, "-c", ask)
    lines = compose.run("logs").stdout.splitlines()
    assert {line.split()[0] for line in lines if "GET /" in line} == {"web-1", "web-2", "web-3"}


HEALTH = """
services:
  web:
    command: [PYTHON, -u, -m, http.server, --bind, 127.0.0.1, "80"]
    scale: 2
    healthcheck:
      test: test -e ok && curl -fsS http://127.0.0.1/
      interval: 100ms
      timeout: 20s
      retries: 2
      start_period: 1m
  after:
    command: echo after
    healthcheck: {disable: true}
    depends_on: {web: {condition: service_healthy}}
"""


@pytest.mark.program("curl")
@pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=pytest.mark.root)])
def test_a_health_check_is_of_the_very_instance(compose: Compose, user: str | None) -> None:
    """127.0.0.1 is its own: each sees its own checks only, and no app is made for them."""
    compose.write(HEALTH.replace("    scale: 2", f"    scale: 2\n    user: {user}" if user else "    scale: 2"))
    (compose.directory / "ok").touch()
    process = compose.start("up")
    said = read_until(process, "after-1 exited")
    assert said.count("GET /") >= 2
    assert {line.split()[0] for line in said.splitlines() if "GET /" in line} == {"web-1", "web-2"}
    assert set(compose.apps()) == {"web"}
    (compose.directory / "ok").unlink()
    read_until(process, "is unhealthy")
    eventually(lambda: {row["state"] for name, row in compose.ps().items() if "web" in name} == {"unhealthy"})
    (compose.directory / "ok").touch()
    eventually(lambda: {row["state"] for name, row in compose.ps().items() if "web" in name} == {"healthy"})


def test_a_check_that_never_succeeds_ends_the_start(compose: Compose) -> None:
    compose.write("""
services:
  one:
    command: sleep 100
    healthcheck: {test: echo not yet; exit 1, interval: 100ms, retries: 2}
  two: {command: sleep 100, depends_on: {one: {condition: service_healthy}}}
""")
    done = compose.run("up", check=False)
    assert done.returncode == 1
    assert "two can't start: one-1 is unhealthy" in done.stderr
    assert "one-1 is unhealthy: not yet" in done.stdout
    assert compose.nothing_is_left()


def test_a_check_that_hangs_is_ended(compose: Compose) -> None:
    compose.write("""
services:
  one:
    command: sleep 100
    healthcheck: {test: sleep 4711 & echo $$! >> pids; wait, interval: 100ms, timeout: 500ms, retries: 2}
  two: {command: sleep 100, depends_on: [one]}
""")
    compose.run("up", "-d")
    eventually(lambda: compose.ps()["one-1"]["state"] == "unhealthy")
    compose.run("down")
    for pid in (compose.directory / "pids").read_text().split():
        eventually(lambda each=pid: has_ended(int(each)))


def test_an_app_without_a_namespace(compose: Compose) -> None:
    compose.write("""
services:
  web:
    command: PYTHON -u -m http.server 80
    healthcheck: {test: "PYTHON -c 'import urllib.request as u; u.urlopen(\\"http://127.0.0.1/\\")'", interval: 1s}
    x-appswitch: {netns: false, tags: [grp=a], ip: 10.9.7.7}
""")
    compose.run("up", "--wait")
    (row,) = [row for row in compose.switch.rows("ps") if "http.server" in row["command"]]
    assert (row["netns"], row["ip"], row["tags"]) == (False, "10.9.7.7", ["project=" + compose_name(compose), "grp=a"])


def compose_name(compose: Compose) -> str:
    return str(json.loads(compose.run("config", "--json").stdout)["name"])


@pytest.mark.parametrize(("restart", "times"), [("always", 3), ("on-failure:2", 2)])
def test_restarts(compose: Compose, restart: str, times: int) -> None:
    compose.write(f"""
services:
  one:
    command: sh -c 'echo run; test "$$(wc -c < n)" -ge {times} && exec sleep 100; printf x >> n; exit 1'
    restart: {restart}
    healthcheck: {{disable: true}}
""")
    (compose.directory / "n").touch()
    process = compose.start("up")
    said = "".join(read_until(process, "one-1 | run") for _ in range(times + 1))
    assert said.count("exited with status 1") == times
    assert "starts again in 0.1 s" in said
    eventually(lambda: compose.ps()["one-1"]["restarts"] == times)


def test_a_program_killed_while_it_serves_comes_back(compose: Compose) -> None:
    compose.write("services: {web: {command: PYTHON -m http.server 80, restart: always}}")
    compose.run("up", "--wait")
    first = compose.ps()["web-1"]["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: (row := compose.ps()["web-1"])["state"] == "healthy" and row["pid"] not in (None, first))


def test_one_that_ends_after_the_start_ends_alone(compose: Compose) -> None:
    compose.write("services: {web: {command: PYTHON -m http.server 80}, two: {command: PYTHON -m http.server 81}}")
    compose.run("up", "--wait")
    os.kill(compose.ps()["web-1"]["pid"], signal.SIGKILL)
    eventually(lambda: compose.ps()["web-1"]["state"] == "exited")
    assert compose.ps()["web-1"]["status"] == 137
    assert compose.ps()["two-1"]["state"] == "healthy"


@pytest.mark.program("redis-server")
def test_variables_and_directories(compose: Compose) -> None:
    (compose.directory / "sub").mkdir()
    (compose.directory / ".env").write_text("GREETING=hello\nWHO=file\n")
    (compose.directory / "more.env").write_text("MORE=from $WHO\n")
    compose.write("""
services:
  one:
    command: sh -c 'echo $GREETING $${A} $${B} $${MORE} $$PWD ${NOBODY:-fine} $$PYTHONPATH'
    env_file: more.env
    environment: {A: 1.10, B: , PYTHONPATH: /nowhere, PYTHONHOME: /nowhere}
    working_dir: sub
    healthcheck: {disable: true}
""")
    environment = {**compose.switch.environment, "WHO": "shell", "B": "b"}
    done = compose.run("up", env=environment)
    assert f"one-1 | hello 1.10 b from shell {compose.directory}/sub fine /nowhere\n" in done.stdout


def test_a_module_in_the_services_directory_is_none_of_ours(compose: Compose) -> None:
    (compose.directory / "click.py").write_text("raise SystemExit('imported')")
    compose.write("services: {one: {command: echo fine, healthcheck: {disable: true}}}")
    assert "one-1 | fine" in compose.switch.command("compose", "-f", str(compose.file), "up").stdout


def test_logs_go_on_until_all_has_ended(compose: Compose) -> None:
    compose.write(CHAIN)
    compose.run("up", "--wait")
    logs = [compose.start("logs", *flags) for flags in (["-f"], ["-f", str(compose.file), "-f", "db"])]
    for each in logs:
        read_until(each, "db-1  | serves")
    compose.run("down")
    everything, one = (each.communicate(timeout=PATIENCE)[0] for each in logs)
    assert [each.returncode for each in logs] == [0, 0]
    assert "web-1 | ended" in everything
    assert "db-1  | ended\ndb-1 exited with status 0\n" in everything
    assert "web-1" not in one
    assert "db-1  | ended" in one
    assert "there is no service nobody" in failed_logs(compose)


def failed_logs(compose: Compose) -> str:
    compose.run("up", "-d")
    return compose.run("logs", "nobody", check=False).stderr


def test_a_reader_that_goes_stops_all(compose: Compose) -> None:
    """`compose up | head`."""
    compose.write(
        "services: {one: {command: sh -c 'while echo line; do sleep 0.05; done', healthcheck: {disable: true}}}"
    )
    process = compose.start("up")
    read_until(process, "line")
    assert process.stdout
    process.stdout.close()
    process.wait(PATIENCE)
    assert compose.nothing_is_left()


def test_the_fields_of_ps_are_documented(compose: Compose) -> None:
    compose.write("services: {one: {command: sleep 100}}")
    compose.run("up", "-d")
    page = (Path(__file__).parents[2] / "docs" / "compose.md").read_text().split("## ps")[1]
    (row,) = compose.ps().values()
    assert list(row) == re.findall(r"^\| (\w+) \|", page, flags=re.MULTILINE)[1:]
    (head, line), (bare,) = (compose.run("ps", *flags).stdout.splitlines() for flags in ([], ["--no-headers"]))
    assert (head.isupper(), line.split()) == (True, bare.split())
    assert len(compose.run("ps", "-o", "wide").stdout.splitlines()[0].split()) == len(row)


def test_config(compose: Compose) -> None:
    compose.write("services: {web: {command: 'serve ${PORT:-80}', profiles: [p]}, db: {command: db, scale: 2}}")
    assert compose.run("config", "--services").stdout == "db\n"
    assert compose.run("config", "--services", "--profile", "p").stdout == "web\ndb\n"
    assert compose.run("config", "-q").stdout == ""
    shown = json.loads(compose.run("--profile", "*", "config", "--json").stdout)
    assert shown["services"]["web"]["command"] == ["serve", "80"]
    before = compose.run("config").stdout
    compose.file.write_text(before)
    assert compose.run("config").stdout == before


def test_an_error_in_the_file_starts_nothing(compose: Compose) -> None:
    compose.write("services:\n  web:\n    image: nginx\n")
    for command in (["up"], ["up", "-d"], ["config"]):
        done = compose.run(*command, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("appswitch: compose.yaml:3: services.web.image: ")
        assert "hint: " in done.stderr
    assert compose.nothing_is_left()


@pytest.mark.parametrize(
    "arguments", [["up", "--scale", "web"], ["up", "--scale", "web=-1"], ["ps", "x"], ["logs", "-n", "-1"]]
)
def test_wrong_usage(compose: Compose, arguments: list[str]) -> None:
    compose.write("services: {}")
    assert compose.run(*arguments, check=False).returncode == 2


def test_no_file(compose: Compose) -> None:
    done = compose.run("up", check=False)
    assert done.returncode == 1
    assert "there is no compose.yaml" in done.stderr


def test_a_policy_that_the_running_trap_handler_doesn_t_have(compose: Compose) -> None:
    compose.write("x-appswitch: {policy: p.toml}\nservices: {}")
    done = compose.run("up", check=False)
    assert done.returncode == 1
    assert "its policy is its own" in done.stderr


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Compose]:
    """Without a trap handler."""
    with tempfile.TemporaryDirectory(prefix="as-") as directory:
        made = Compose(Switch(Path(directory)), tmp_path)
        yield made
        made.close()


def test_a_trap_handler_is_started_with_the_policy_and_goes_with_the_project(alone: Compose) -> None:
    (alone.directory / "p.toml").write_text('default = "deny"\n')
    alone.write("""
x-appswitch: {policy: p.toml}
services:
  web: {command: PYTHON -m http.server 80}
""")
    alone.run("up", "--wait")
    assert alone.switch.command("why", "web", "web:80", check=False).returncode == 0
    other = "import socket; socket.create_connection(('web', 80), timeout=20)"
    assert "refused" in alone.switch.run(PYTHON, "-c", other, check=False).stderr
    alone.run("down")
    eventually(lambda: not alone.switch.trap.exists())


def test_ports_without_a_gateway(compose: Compose) -> None:
    compose.write("services: {one: {command: PYTHON -m http.server 80, ports: ['8080:80']}}")
    compose.run("up", "--wait")
    assert "no host is a gateway" in compose.run("logs").stdout
    assert compose.ps()["one-1"]["exposed"] == []


def test_a_trap_handler_that_is_killed_and_started_again(compose: Compose) -> None:
    """Who listens is known again; who starts then finds it."""
    compose.write("services: {web: {command: PYTHON -m http.server 80, restart: always}}")
    compose.run("up", "--wait")
    compose.switch.kill_server()
    compose.switch.serve()
    eventually(lambda: compose.ps()["web-1"]["listens"] == ["80/tcp"])
    os.kill(compose.ps()["web-1"]["pid"], signal.SIGKILL)
    eventually(lambda: (row := compose.ps()["web-1"])["restarts"] == 1 and row["state"] == "healthy")


NOBODY = 65534


@pytest.mark.root
def test_an_ordinary_user(tmp_path: Path) -> None:
    with running_switch(user=NOBODY) as switch:
        directory = switch.directory / "project"
        directory.mkdir(mode=0o755)
        compose = Compose(switch, directory)
        compose.write("""
services:
  web:
    command: [PYTHON, -u, -m, http.server, "80"]
    healthcheck: {test: "PYTHON -c 'import urllib.request as u; u.urlopen(\\"http://127.0.0.1/\\")'", interval: 1s}
""")
        compose.run("up", "--wait")
        assert compose.ps()["web-1"]["state"] == "healthy"
        compose.run("down")
        assert compose.nothing_is_left()
