"""The command line as data, taken from click's tree; and man pages made of it: `python -m appswitch.cli.manual DIR`.

A page a command: appswitch.1, appswitch-serve.1, appswitch-compose-up.1... docs/generate.py makes the reference of the
same data, so both say what `--help` says. Only what click doesn't know stands here: the environment, and the exit
status.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
from attrs import frozen

from appswitch.cli.group import cli
from appswitch.host.processes import FAILED
from appswitch.spawn import NOT_EXECUTABLE, NOT_FOUND

ENVIRONMENT = {
    "APPSWITCH_SOCKET": "The trap handler's socket, as `--socket` is for each command. Without it: "
    "`/run/appswitch/trap.sock` for root; for others `$XDG_RUNTIME_DIR/appswitch/trap.sock`, or, where that isn't set, "
    "`/tmp/appswitch-UID/appswitch/trap.sock`.",
    "APPSWITCH_NAME": "The name of a program that runs without `spawn`, by LD_PRELOAD alone.",
    "APPSWITCH_IP": "The virtual IP of such a program.",
    "APPSWITCH_TAGS": "Its tags: `K=V`, with commas between.",
    "APPSWITCH_TCP": "`1`: as `spawn --tcp`, for such a program.",
    "APPSWITCH_BYPASS": "As `spawn --bypass`, with spaces between, for such a program.",
    "APPSWITCH_TRACER": "How static programs are trapped: `notify` (by the kernel's signals) or `ptrace`; by default "
    "the former, where the kernel can.",
}
INTERNAL = {
    "APPSWITCH_APP": "who a program is, from `spawn` to the preload library",
    "_APPSWITCH_COMPLETE": "click's, for completion",
}
STATUS = {
    0: "It has succeeded; `why`: the connect would go through.",
    1: "It has failed: the cause is on stderr, with a hint. `why`: the connect would not go through; `doctor`: "
    "something is a problem; `nodes --wait`, `drain`: not within the time.",
    2: "Wrong usage, or a value that can't be.",
}
SPAWN_STATUS = {
    FAILED: "AppSwitch failed: the program hasn't been started.",
    NOT_EXECUTABLE: "The program can't be executed.",
    NOT_FOUND: "The program isn't there.",
    "128+n": "Signal n has ended the program.",
    "other": "The program's own.",
}


@frozen
class Flag:
    """An option. names: as they are written; value: what stands for its value, empty: it has none."""

    names: tuple[str, ...]
    value: str
    help: str
    default: str = ""
    repeatable: bool = False


@frozen
class Page:
    """A command. words: as it is called; usage: what follows them; text: paragraphs; commands: of a group, by name."""

    words: tuple[str, ...]
    usage: str
    text: tuple[str, ...]
    flags: tuple[Flag, ...]
    commands: tuple[tuple[str, str], ...] = ()

    @property
    def summary(self) -> str:
        """The first sentence."""
        return self.text[0].partition(". ")[0].rstrip(".:")


def pages(command: click.Command = cli, words: tuple[str, ...] = ("appswitch",)) -> Iterator[Page]:
    """The page of a command, and those of all below it."""
    arguments = " ".join(_argument(each) for each in command.params if isinstance(each, click.Argument))
    text = tuple(" ".join(part.split()) for part in re.split(r"\n\s*\n", (command.help or "").strip()))
    flags = tuple(_flag(each) for each in command.params if isinstance(each, click.Option) and not each.hidden)
    below = dict(_below(command))
    if isinstance(command, click.Group):
        arguments = "COMMAND ..."
    usage = f"[OPTIONS] {arguments}".strip()
    found = tuple((name, next(pages(each, (*words, name))).summary) for name, each in below.items())
    yield Page(words, usage, text, flags, found)
    for name, each in below.items():
        yield from pages(each, (*words, name))


def _below(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            if found is not None and not found.hidden:
                yield name, found


def _argument(argument: click.Argument) -> str:
    if argument.metavar:
        return argument.metavar
    if isinstance(argument.type, click.Choice):
        return "|".join(argument.type.choices)
    return (argument.name or "").upper()


def _flag(option: click.Option) -> Flag:
    value = ""
    if not (option.is_flag or option.count):
        choices = option.type.choices if isinstance(option.type, click.Choice) else None
        value = option.metavar or ("|".join(choices) if choices else (option.name or "").upper())
    shown, _, default = (option.help or "").partition("  [default: ")
    if option.show_default is True or (value and isinstance(option.type, click.Choice) and not option.multiple):
        default = str(option.default)
    return Flag((*option.opts, *option.secondary_opts), value, shown, default.rstrip("]"), option.multiple)


# --- roff (man(7))


def roff(page: Page, date: str) -> str:
    """Its man page. date: of the page."""
    name = "-".join(page.words)
    lines = [
        f'.TH {_escaped(name.upper())} 1 "{date}" "appswitch {version("appswitch")}" "AppSwitch"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(page.summary[0].lower() + page.summary[1:])}",
        ".SH SYNOPSIS",
        f"\\fB{_escaped(' '.join(page.words))}\\fR {_escaped(page.usage)}",
        ".SH DESCRIPTION",
    ]
    for index, paragraph in enumerate(page.text):
        lines += [".PP"] * (index > 0) + [_text(paragraph)]
    lines += [".SH OPTIONS"]
    for each in page.flags:
        value = f" \\fI{_escaped(each.value)}\\fR" if each.value else ""
        again = " It may be given several times." * each.repeatable
        default = f" By default: {each.default}." * bool(each.default)
        names = ", ".join(f"\\fB{_escaped(flag)}\\fR" for flag in each.names)
        lines += [".TP", names + value, _text(each.help + again + default)]
    lines += [".TP", r"\fB\-h\fR, \fB\-\-help\fR", "Show what there is, and exit."]
    lines += _list("COMMANDS", {f"\\fB{_escaped(each)}\\fR": what + "." for each, what in page.commands})
    status = {str(code): what for code, what in STATUS.items()}
    if page.words[1:] == ("spawn",):
        status = {str(code): what for code, what in SPAWN_STATUS.items()} | {"2": STATUS[2]}
    lines += _list("EXIT STATUS", status)
    lines += _list("ENVIRONMENT", {f"\\fB{each}\\fR": what for each, what in ENVIRONMENT.items()})
    others = ["-".join((*page.words, each)) for each, _ in page.commands] or ["-".join(page.words[:-1])]
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_escaped(each)}\\fR(1)" for each in others)]
    return "\n".join(lines) + "\n"


def _list(heading: str, entries: dict[str, str]) -> list[str]:
    lines = [f".SH {heading}"] * bool(entries)
    for term, what in entries.items():
        lines += [".TP", term, _text(what)]
    return lines


def _text(text: str) -> str:
    """Backquotes make it bold."""
    parts = _escaped(text).split("\\(ga")
    bold = "".join(part if index % 2 == 0 else f"\\fB{part}\\fR" for index, part in enumerate(parts))
    return f"\\&{bold}" if bold[:1] in (".", "'") else bold


def _escaped(text: str) -> str:
    for special, written in (
        ("\\", "\\e"),
        ("-", "\\-"),
        ("`", "\\(ga"),
        ("'", "\\(aq"),
        ("~", "\\(ti"),
        ("^", "\\(ha"),
    ):
        text = text.replace(special, written)
    return text


def write(directory: Path) -> list[Path]:
    """All pages, as files in `directory`, which is made. They bear the date SOURCE_DATE_EPOCH, or today's."""
    directory.mkdir(parents=True, exist_ok=True)
    date = time.strftime("%Y-%m-%d", time.gmtime(float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    files = []
    for page in pages():
        files.append(directory / f"{'-'.join(page.words)}.1")
        files[-1].write_text(roff(page, date))
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m appswitch.cli.manual DIRECTORY")
    for file in write(Path(sys.argv[1])):
        sys.stdout.write(f"{file}\n")
