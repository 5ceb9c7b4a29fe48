"""TAB, in real shells, beside a trap handler and without one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, running_switch

SERVE = "import socket; s = socket.create_server(('', 8000)); s.accept()"
# As readline calls the function of a command (bash(1), "Programmable Completion"); it leaves the words in COMPREPLY.
BASH = """
eval "$(appswitch completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_appswitch_completion appswitch "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What its function hands to the completion system is printed.
ZSH = """
compdef() { :; }
_describe() { local name=$3; print -l -- ${${(P)name}%%:*}; }
compadd() { local name=${@[-1]}; print -l -- ${(P)name}; }
eval "$(appswitch completion zsh)"
words=("$@"); CURRENT=$#
_appswitch_completion
"""
FISH = 'appswitch completion fish | source; complete --do-complete "$argv"'


@pytest.fixture(scope="module")
def busy() -> Iterator[Switch]:
    with running_switch() as switch:
        for name in "web", "worker":
            switch.spawn("--name", name, sys.executable, "-c", SERVE)
        switch.command("external", "add", "orders", "5432:db.example:5432")
        switch.wait_for("web:8000", "worker:8000")
        yield switch


def tab(switch: Switch, shell: str, *words: str) -> list[str]:
    """What is offered for the last of the words."""
    line = ["appswitch", *words]
    command = {
        "bash": ["bash", "--norc", "-c", BASH, "bash", *line],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh", *line],
        "fish": ["fish", "--no-config", "-c", FISH, " ".join(line)],
    }[shell]
    path = f"{Path(sys.executable).parent}:{switch.environment['PATH']}"
    environment = {**switch.environment, "PATH": path, "HOME": str(switch.directory)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "Traceback" not in done.stderr, done.stderr
    return [each.split("\t")[0] for each in done.stdout.splitlines() if each]


SHELLS = [pytest.param(shell, marks=pytest.mark.program(shell)) for shell in ("bash", "zsh", "fish")]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell(busy: Switch, shell: str) -> None:
    assert tab(busy, shell, "re") == ["resolve"]
    assert "--bypass" in tab(busy, shell, "spawn", "--by")
    assert tab(busy, shell, "resolve", "w") == ["web", "worker"]


@pytest.mark.program("bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("drain", ""), ["web", "worker"]),
        (("why", "we"), ["web"]),
        (("observe", "--app", "wo"), ["worker"]),
        (("observe", "--kind", "d"), ["deny"]),
        (("external", "rm", ""), ["orders"]),
        (("external", "l"), ["list"]),
        (("compose", "do"), ["down"]),
        (("completion", "z"), ["zsh"]),
        (("serve", "--egress", ""), ["allow", "deny"]),
        (("resolve", "x"), []),
    ],
    ids=lambda value: "-".join(value),
)
def test_what_is_offered(busy: Switch, words: tuple[str, ...], offered: list[str]) -> None:
    assert tab(busy, "bash", *words) == offered


@pytest.mark.program("bash", "sha256sum")
def test_services_and_programs(busy: Switch) -> None:
    assert tab(busy, "bash", "why", "web", "w") == ["web:8000", "worker:8000"]
    assert tab(busy, "bash", "spawn", "--wait-for", "we") == ["web:8000"]
    assert "sha256sum" in tab(busy, "bash", "spawn", "--name", "x", "sha256")
    assert tab(busy, "bash", "spawn", "cat", "sha256") == [], "a word of the program's: the shell offers files"


@pytest.mark.program("bash")
def test_without_a_trap_handler(tmp_path: Path) -> None:
    switch = Switch(tmp_path)
    assert tab(switch, "bash", "resolve", "") == []
    assert tab(switch, "bash", "ps", "--no") == ["--no-headers"]
    assert not switch.trap.exists(), "nothing is started for it"
