"""Draws docs/terminal.svg: the commands of docs/terminal.md, run for real, and what they print.

python -m docs.terminal
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from html import escape
from pathlib import Path

from docs.console import Shell, blocks

HERE = Path(__file__).parent
COLUMNS, LINE, CHARACTER, MARGIN = 104, 18, 7.8, 16  # characters; pixels
WITHIN = 20.0  # seconds that a program may take to show up


def record() -> list[tuple[str, list[str]]]:
    """(command, the lines that it printed), one after the other, under a trap handler of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said: list[tuple[str, list[str]]] = []
    with tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, "PATH": path, "APPSWITCH_SOCKET": f"{directory}/trap.sock", "LC_ALL": "C.UTF-8"}
        shell = Shell(Path(directory), environment)
        try:
            for step in [step for block in blocks((HERE / "terminal.md").read_text()) for step in block.steps]:
                if step.in_background is not None:
                    shell.start(step.in_background)
                    said.append((step.command, []))
                    continue
                deadline = time.monotonic() + WITHIN
                output = shell.run(step.command)[1]
                while not step.fits(output) and time.monotonic() < deadline:
                    time.sleep(0.2)
                    output = shell.run(step.command)[1]
                if not step.fits(output):
                    sys.exit(f"{step.command} prints something else:\n{output}")
                said.append((step.command, output.strip("\n").splitlines()))
        finally:
            shell.close()
    return said


def draw(said: list[tuple[str, list[str]]]) -> str:
    """The picture."""
    lines: list[tuple[str, str]] = []
    for command, output in said:
        lines.append(("command", f"$ {command}"))
        lines += [("output", each[:COLUMNS]) for each in output]
        lines += [("output", "")] * bool(output)
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN
    texts = [
        f'<text class="{kind}" x="{MARGIN}" y="{MARGIN + (number + 1) * LINE - 5}">{escape(text)}</text>'
        for number, (kind, text) in enumerate(lines)
        if text
    ]
    style = (
        "text { font: 13px ui-monospace, Menlo, Consolas, monospace; white-space: pre; fill: #c9d1d9 } "
        ".command { fill: #7ee787 }"
    )
    title = "Two instances of a web server, found by name; a database that one group alone reaches"
    size = f'width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" {size} viewBox="0 0 {width} {height}">',
            f"<title>{title}</title>",
            f"<style>{style}</style>",
            f'<rect {size} rx="8" fill="#0d1117"/>',
            *texts,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    (HERE / "terminal.svg").write_text(draw(record()))
