"""The command line, as a contract (DESIGN section 5)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path
from tests.harness import Switch, free_port
from tests.zygote import MODULE

COMMANDS = [
    "serve",
    "spawn",
    "ps",
    "services",
    "connections",
    "nodes",
    "resolve",
    "why",
    "observe",
    "doctor",
    "drain",
    "compose",
]
LISTS = [
    ["ps"],
    ["services"],
    ["connections"],
    ["nodes"],
    ["resolve", "web"],
    ["observe"],
    ["observe", "-f"],
    ["drain", "web"],
]


@pytest.fixture
def cli(tmp_path: Path) -> Switch:
    """Without a trap handler."""
    return Switch(tmp_path)


def failed(switch: Switch, *arguments: str, status: int) -> str:
    """What a command says that fails with this exit status: on stderr alone, and never a traceback."""
    done = switch.command(*arguments, check=False)
    assert done.returncode == status, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_help_names_every_command(cli: Switch) -> None:
    text = cli.command("--help").stdout
    assert text == cli.command("-h").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in text


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (
            "serve",
            "--node --bind --join --gateway --policy --key-file --serf --socket --state-dir --http --dns-upstream",
        ),
        ("serve", "--gateway-bind --egress"),
        (
            "spawn",
            "--ip --name --tag --expose --bypass --user --no-netns --tcp --exclusive --wait-for --wait-timeout",
        ),
        ("ps", "-o --json --no-headers --socket"),
        ("services", "-o --json --no-headers --socket"),
        ("connections", "-o --json --no-headers --socket"),
        ("drain", "--undo --no-wait --timeout --socket"),
        ("nodes", "--wait --timeout -o --json --no-headers --socket"),
        ("resolve", "-o --json --no-headers --socket"),
        ("why", "-o --json --no-headers --socket"),
        ("doctor", "-o --json --no-headers --socket"),
        ("observe", "--follow --json --kind --app --tail --socket"),
        ("compose", "--file --project-name --profile --env-file --socket"),
        (
            "compose up",
            "--detach --wait --wait-timeout --scale --no-color --file --project-name --profile --env-file --socket",
        ),
        ("compose down", "--kill --file --project-name --profile --env-file --socket"),
        ("compose ps", "-o --json --no-headers --file --project-name --profile --env-file --socket"),
        ("compose logs", "--follow --tail --timestamps --no-color --file --project-name --profile --env-file --socket"),
        ("compose config", "--services --quiet --json --file --project-name --profile --env-file --socket"),
    ],
)
def test_help_names_every_flag(cli: Switch, command: str, flags: str) -> None:
    text = cli.command(*command.split(), "--help").stdout
    assert [flag for flag in flags.split() if f"{flag} " not in text and f"{flag}\n" not in text] == []
    assert "--ready-fd" not in text


def test_version(cli: Switch) -> None:
    assert cli.command("--version").stdout.startswith("appswitch, version ")


def test_shim_path(cli: Switch) -> None:
    printed = cli.command("--shim-path").stdout
    assert printed == f"{shim_path()}\n"
    assert Path(printed.strip()).is_file()


@pytest.mark.parametrize("arguments", [["no-such-command"], ["ps", "--no-such-flag"], ["resolve"], ["ps", "-o", "xml"],
                                       ["spawn"], ["spawn", "--no-such-flag", "true"], ["ps", "more"],
                                       ["observe", "--kind", "no-such"], ["observe", "web"]])  # fmt: skip
def test_usage_errors(cli: Switch, arguments: list[str]) -> None:
    assert "Usage: appswitch" in failed(cli, *arguments, status=2)


@pytest.mark.parametrize("arguments", LISTS)
def test_no_server(cli: Switch, arguments: list[str]) -> None:
    said = failed(cli, *arguments, status=1)
    assert str(cli.trap) in said
    assert "hint: start one with" in said


def test_the_socket_flag_goes_before_the_environment(cli: Switch, tmp_path: Path) -> None:
    assert f"{tmp_path}/other.sock" in failed(cli, "ps", "--socket", f"{tmp_path}/other.sock", status=1)


def test_a_socket_path_that_is_too_long(cli: Switch) -> None:
    for arguments in (["ps"], ["serve"]):
        assert "too long" in failed(cli, *arguments, "--socket", "/" + "x" * 200, status=2)
    said = failed(cli, "spawn", "--socket", "/" + "x" * 200, "true", status=2)
    assert "too long" in said
    assert "hint: " in said


@pytest.mark.root
def test_another_users_server(switch: Switch) -> None:
    other = Switch(switch.directory, user=65534)
    for arguments, status in ((["ps"], 1), (["spawn", "true"], 125)):
        said = failed(other, *arguments, status=status)
        assert "another user's" in said


def test_lists_of_a_server(switch: Switch) -> None:
    """As a table, wide, as JSON, and without headers."""
    code = "import socket; s = socket.create_server(('', 8000)); s.accept()"
    web = ("--name", "web", "--ip", "10.1.1.1", "--tag", "grp=1", "--tag", "grp=2")
    process = switch.spawn(*web, sys.executable, "-c", code)
    switch.wait_for("web:8000")

    (app,) = switch.rows("ps")
    assert (app["name"], app["ip"], app["tags"], app["pid"]) == ("web", "10.1.1.1", ["grp=1", "grp=2"], process.pid)
    assert app["command"] == [sys.executable, "-c", code]
    (service,) = switch.rows("services")
    assert set(service) == {
        "name", "ip", "port", "proto", "app", "node", "tags", "real", "medium", "scope", "state", "exposed"
    }  # fmt: skip
    assert (service["name"], service["port"], service["node"], service["app"]) == ("web", 8000, "n1", app["id"])
    (node,) = switch.rows("nodes", "--wait")  # a host by itself always agrees
    assert (node["name"], node["state"], node["gateway"], node["address"]) == ("n1", "alive", False, None)
    (name,) = switch.rows("resolve", "web")
    assert (name["ip"], name["instances"]) == ("10.1.1.1", 1)
    assert json.loads(switch.command("services", "-o", "json").stdout) == [service]

    head, line = switch.command("services").stdout.splitlines()
    assert head.split() == ["NAME", "IP", "PORT", "PROTO", "APP", "NODE", "TAGS", "MEDIUM", "SCOPE", "STATE", "EXPOSED"]
    assert line.split() == [
        "web",
        "10.1.1.1",
        "8000",
        "tcp",
        str(app["id"]),
        "n1",
        "grp=1",
        "grp=2",
        "unix",
        "public",
        "up",
        "-",
    ]
    assert head.index("PORT") == line.index("8000")  # columns stand under their heads
    assert switch.command("services", "--no-headers").stdout.split() == line.split()
    head, line = switch.command("services", "-o", "wide").stdout.splitlines()
    assert {"NODE", "REAL"} <= set(head.split())
    assert "n1" in line.split()

    said = failed(switch, "resolve", "nothing", status=1)
    assert "'nothing'" in said
    assert "hint: " in said


def test_doctor(switch: Switch, tmp_path: Path) -> None:
    done = switch.command("doctor", "--json", "sh", "no-such-program", check=False)
    assert done.returncode == 1
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    assert rows["trap handler"]["level"] == rows["sh"]["level"] == "ok"
    assert (rows["no-such-program"]["level"], rows["no-such-program"]["message"]) == (
        "problem",
        "no-such-program isn't there",
    )
    lines = switch.command("doctor", "no-such-program", check=False).stdout.splitlines()
    assert lines[0].split() == ["LEVEL", "CHECK", "MESSAGE"]
    assert lines[-1].split() == ["hint:", "it", "is", "looked", "for", "in", "PATH"]
    problems = [row for row in rows.values() if row["level"] == "problem" and row["check"] != "no-such-program"]
    assert switch.command("doctor", "sh", check=False).returncode == bool(problems)


def test_empty_lists(switch: Switch) -> None:
    for command in ("ps", "services"):
        assert switch.rows(command) == []
        for output in ("table", "wide"):
            assert len(switch.command(command, "-o", output).stdout.splitlines()) == 1
            assert switch.command(command, "-o", output, "--no-headers").stdout == ""


def test_a_reader_that_goes_is_no_error(switch: Switch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = switch.command("ps", capture_output=False, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--ip", "127.0.0.1"], "127.0.0.1 can't be a virtual IP"),
        (["--ip", "nonsense"], "'nonsense' is not an IP address"),
        (["--name", "a b"], "'a b' can't be an app's name"),
        (["--name", "localhost"], "reserved"),
        (["--tag", "x"], "'x' is not a tag"),
        (["--wait-for", "x"], "'x' is not NAME:PORT"),
        (["--wait-for", "x:1", "--wait-for", "x", "--wait-timeout", "0"], "'x' is not NAME:PORT"),
        (["--user", "no-such-user"], "'no-such-user'"),
    ],
)
def test_what_spawn_can_t_do(switch: Switch, flags: list[str], reason: str) -> None:
    said = failed(switch, "spawn", *flags, "true", status=2)
    assert said.startswith("appswitch: ")
    assert reason in said
    assert "hint: " in said or flags[0] == "--user"


def test_a_name_that_stands_for_another_address(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.1.1.1", "sh", "-c", "echo ready; exec sleep 99", stdout=subprocess.PIPE)
    process = switch._started[-1]
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    said = failed(switch, "spawn", "--name", "web", "--ip", "10.1.1.2", "true", status=125)
    assert "10.1.1.1" in said
    assert "hint: use --ip 10.1.1.1" in said


@pytest.mark.parametrize(
    ("flags", "cause"), [([], "is taken"), (["--serf", "no-such-serf"], "isn't there: no-such-serf")]
)
def test_serve_says_why_it_can_t_be_one_of_several(cli: Switch, flags: list[str], cause: str) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        said = failed(cli, "serve", "--bind", f"127.0.0.1:{taken.getsockname()[1]}", *flags, status=1)
    assert cause in said
    assert "\nhint: " in said


def test_spawn_takes_the_programs_flags_for_its_own_alone(switch: Switch) -> None:
    """With and without `--`."""
    for dashes in ([], ["--"]):
        done = switch.run("--name", "x", *dashes, "echo", "--name", "-h", "--", "--json")
        assert done.stdout == "--name -h -- --json\n"


@pytest.mark.parametrize("arguments", [("drain", "db", "--timeout"), ("spawn", "--wait-for", "db:1", "--wait-timeout")])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_what_is_no_time_to_wait(arguments: tuple[str, ...], seconds: str) -> None:
    done = subprocess.run([*MODULE, *arguments, seconds, "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"Invalid value for '{arguments[-1]}'" in done.stderr
