"""The commands of README.md and docs/guide.md do what these say: each is run, on hosts that are network namespaces."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from docs.console import Shell, Step, blocks, files
from tests.hosts import Network, network

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ("README.md", "docs/guide.md", "docs/terminal.md")
FIRST = "10.0.0.1"
"""In the documents the address of host a."""
PATIENCE = 60.0  # seconds that a command may take
QUESTIONS = ("ps", "services", "connections", "nodes", "why", "observe", "resolve")

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "curl", "dig", "redis-server", "redis-cli", "bash")]


class Reader:
    """Somebody who types the commands of a document, and has a look at what they print."""

    def __init__(self, net: Network, directory: Path, stack: ExitStack) -> None:
        self._net = net
        self._directory = directory
        self._stack = stack
        self._shells: dict[str, Shell] = {}
        self._first = ""

    def follow(self, step: Step) -> None:
        """AssertionError: it prints something else."""
        shell = self._shell(step.host)
        if step.in_background is not None:
            shell.start(self._localized(step, step.in_background))
            if "appswitch s" in step.command:  # serve, or spawn, which starts one: typing takes longer
                self._until(shell, Step(step.host, "appswitch ps >/dev/null 2>&1 && echo there", ["there"]))
            return
        self._until(shell, step)

    def _until(self, shell: Shell, step: Step) -> None:
        """Questions are asked again for a while: what was started in the background may still be on its way."""
        command, deadline = self._localized(step, step.command), time.monotonic() + PATIENCE
        while True:
            status, output = shell.run(command, PATIENCE)
            if step.fits(output) and (status == 0 or step.expected):
                return
            is_question = any(f"appswitch {each}" in command for each in QUESTIONS)
            if not is_question or time.monotonic() > deadline:
                raise AssertionError(f"{command}: {status}\n{output}\n--- in the background\n{shell.log}")
            time.sleep(0.1)

    def _localized(self, step: Step, command: str) -> str:
        return command.replace(FIRST, self._first) if step.host in ("a", "b") else command

    def _shell(self, host: str) -> Shell:
        if host not in self._shells:
            made = self._net.add(f"host{host}")
            if host == "a":
                self._first = made.address
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            shell = Shell(self._directory, {**made.environment, "PATH": path}, made.namespace.enter)
            self._stack.callback(shell.close)
            self._stack.callback(shell.run, "[ ! -e compose.yaml ] || appswitch compose down 2>/dev/null || :")
            self._shells[host] = shell
        return self._shells[host]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def reader(directory: Path) -> Iterator[Reader]:
    with network() as net, ExitStack() as stack:
        yield Reader(net, directory, stack)


@pytest.mark.timeout(400)  # the guide has some 40 commands, each a program or two
@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_it_says(document: str, directory: Path, reader: Reader) -> None:
    text = (ROOT / document).read_text()
    for name, content in files(text).items():
        (directory / name).write_text(content)
    found = [block for block in blocks(text) if not block.not_run]
    assert found
    for block in found:
        for step in block.steps:
            reader.follow(step)
