"""Console blocks of documents, and shells that run them.

A block is fenced as `console`. A line `$ COMMAND` is run by a shell, `a$ COMMAND` by that of host a; `&` at its end
means in the background. The lines below, up to the next command, are what it prints; `...` stands for anything; where
there are none, nothing is said of it. `<!-- not run: REASON -->` before a block says that it isn't run,
`<!-- file: NAME -->` that it is a file, for commands to find.
"""

from __future__ import annotations

import fnmatch
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

_BLOCK = re.compile(r"(?:<!-- not run: (?P<why>.*?) -->\n+)?^```console\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?P<host>\w*)\$ (?P<command>.*)")
_BACKGROUND = re.compile(r"(?P<command>.*?)\s*&\s*(#.*)?")


@define
class Step:
    """A command, and the lines that it prints. host: empty: there is one only."""

    host: str
    command: str
    expected: list[str] = field(factory=list)

    @property
    def in_background(self) -> str | None:
        """What is run in the background; None: it isn't."""
        match = _BACKGROUND.fullmatch(self.command)
        return match["command"] if match else None

    def fits(self, output: str) -> bool:
        """Whether it has printed what it should."""
        pattern = "\n".join(self.expected)
        escaped = re.sub(r"([\[*?])", r"[\1]", pattern).replace("...", "*")
        return not self.expected or fnmatch.fnmatchcase(output.replace("\r", "").strip(), escaped)


@frozen
class Block:
    """not_run: why not; empty: it is."""

    steps: list[Step]
    not_run: str


def blocks(text: str) -> Iterator[Block]:
    """Those of a document, in their order."""
    for found in _BLOCK.finditer(text):
        steps: list[Step] = []
        for line in found["text"].splitlines():
            match = _COMMAND.fullmatch(line)
            if match:
                steps.append(Step(match["host"], match["command"]))
            elif steps[-1:] and steps[-1].command.endswith("\\"):
                steps[-1].command += "\n" + line
            else:
                steps[-1].expected.append(line)
        yield Block(steps, found["why"] or "")


def files(text: str) -> dict[str, str]:
    """Name -> content of those that a document has."""
    return dict(_FILE.findall(text))


class Shell:
    """A bash that keeps its variables from command to command. prefix: what runs it elsewhere."""

    def __init__(self, directory: Path, environment: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self._log = directory / "background.log"
        self._mark = f"--done-{os.getpid()}--"
        self._bash = subprocess.Popen(
            [*prefix, "bash", "--norc"], cwd=directory, env=dict(environment), start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def start(self, command: str) -> None:
        """In the background."""
        self._exchange(f"{{ {command}\n}} </dev/null >>{self._log} 2>&1 &", 10)

    def run(self, command: str, within: float = 30.0) -> tuple[int, str]:
        """Its exit status, and all that it has printed. TimeoutError after so many seconds."""
        return self._exchange(f"{{ {command}\n}} </dev/null", within)

    def _exchange(self, script: str, within: float) -> tuple[int, str]:
        assert self._bash.stdin
        assert self._bash.stdout
        self._bash.stdin.write(f"{script}\nprintf '\\n{self._mark}%s\\n' $?\n".encode())
        self._bash.stdin.flush()
        said, deadline = b"", time.monotonic() + within
        end = re.compile(rb"\n" + self._mark.encode() + rb"(\d+)\n$")
        while not (done := end.search(said)):
            if not select.select([self._bash.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{script}: nothing after {within:g} s but {said.decode(errors='replace')!r}")
            data = os.read(self._bash.stdout.fileno(), 1 << 16)
            if not data:
                raise EOFError(said.decode(errors="replace"))
            said += data
        return int(done[1]), said[: done.start()].decode(errors="replace")

    @property
    def log(self) -> str:
        """What commands in the background have said."""
        return self._log.read_text() if self._log.exists() else ""

    def close(self) -> None:
        """Ends it, and what it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._bash.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._bash.wait(5)
                break
        for pipe in (self._bash.stdin, self._bash.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
