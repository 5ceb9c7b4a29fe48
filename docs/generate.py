"""Makes docs/reference of the sources: `python -m docs.generate` writes it, `--check` says what is out of date.

- commands.md, environment.md: of click's tree, as the man pages are (appswitch/cli/manual.py);
- errors.md: of each place in the sources that makes an AppSwitchError, or a Refuse, for a program;
- control.md: of the types that the control protocol is decoded by (appswitch/wire/control.py).

tests/test_documents.py runs the check: a change of one of these that isn't followed here fails.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec

from appswitch.cli.failing import BAD_ARGUMENTS, USAGE
from appswitch.cli.manual import ENVIRONMENT, SPAWN_STATUS, STATUS, Flag, Page, pages
from appswitch.host.processes import FAILED
from appswitch.wire import control

HERE = Path(__file__).parent
SOURCES = HERE.parent / "appswitch"
REFERENCE = HERE / "reference"
NOTE = "<!-- Made by `python -m docs.generate` of the sources; don't change it by hand. -->"


def _table(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(each.replace('|', '&#124;') for each in cells)} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- commands.md, environment.md


def commands() -> str:
    """Each command with its options."""
    lines = [NOTE, "# Commands", ""]
    for page in pages():
        lines += _command(page)
    return "\n".join(lines).rstrip() + "\n"


def _command(page: Page) -> Iterator[str]:
    yield from (f"## {' '.join(page.words)}", "", "```", f"{' '.join(page.words)} {page.usage}", "```", "")
    for paragraph in page.text:
        yield from (re.sub(r"([<>*_])", r"\\\1", paragraph) if "`" not in paragraph else paragraph, "")
    if page.commands:
        yield from _table("command", "")
        for name, what in page.commands:
            yield _row(f"[{name}](#{'-'.join((*page.words, name))})", what)
        yield ""
    if page.flags:
        yield from _table("option", "", "default")
        yield from map(_option, page.flags)
        yield ""


def _option(flag: Flag) -> str:
    names = ", ".join(_code(f"{each} {flag.value}".strip()) for each in flag.names)
    return _row(names + (" (repeatable)" if flag.repeatable else ""), flag.help, _code(flag.default))


def environment() -> str:
    """Variables and exit statuses."""
    lines = [NOTE, "# Environment and exit status", "", "## Environment", "", *_table("variable", "is")]
    lines += [_row(_code(name), what) for name, what in ENVIRONMENT.items()]
    lines += ["", "## Exit status", "", *_table("status", "of every command")]
    lines += [_row(str(code), what) for code, what in STATUS.items()]
    lines += ["", *_table("status", "of `spawn`"), *(_row(str(code), what) for code, what in SPAWN_STATUS.items())]
    return "\n".join(lines) + "\n"


# --- errors.md


def _calls(folder: Path, name: str) -> Iterator[tuple[ast.Call, dict[str, str]]]:
    """Each call of it, and the texts that stand in variables there: what was assigned last before it, in its file."""
    for file in sorted(folder.rglob("*.py")):
        texts: dict[str, str] = {}
        nodes = [each for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Call | ast.Assign)]
        for node in sorted(nodes, key=lambda each: each.lineno):
            if isinstance(node, ast.Assign):
                texts |= _assigned(node)
            elif isinstance(node.func, ast.Name) and node.func.id == name:
                yield node, texts


def _assigned(node: ast.Assign) -> dict[str, str]:
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = list(zip(target.elts, value.elts, strict=False))
    else:
        pairs = [(target, value)]
    found = [(name.id, _text(text, {})) for name, text in pairs if isinstance(name, ast.Name)]
    return {name: text for name, text in found if text is not None}


def _text(node: ast.expr | None, texts: dict[str, str]) -> str | None:
    """A text as it stands in the sources, `...` for what it puts in; None: it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return texts.get(node.id)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values)
    return None


def _argument(call: ast.Call, place: int, name: str, texts: dict[str, str]) -> str | None:
    named = {each.arg: each.value for each in call.keywords}
    return _text(call.args[place] if place < len(call.args) else named.get(name), texts)


def errors() -> str:
    """Of commands, by their reason; and of programs' calls, by errno."""
    found: dict[str, dict[str, str]] = {}
    for call, texts in _calls(SOURCES, "AppSwitchError"):
        reason, message = _argument(call, 0, "reason", texts), _argument(call, 1, "message", texts)
        if reason and message:
            found.setdefault(reason, {}).setdefault(message, _argument(call, 2, "hint", texts) or "")
    lines = [
        NOTE,
        "# Errors",
        "",
        "## Of commands",
        "",
        "A message is on stderr, with `appswitch: ` before it, and a line `hint: ` where there is a way out; what the",
        "control socket answers has the reason, too. The exit status is that of the table; of `spawn` it is",
        f"{FAILED} instead of 1. `...` is what the case puts in.",
        "",
        *_table("reason", "status", "message", "hint"),
    ]
    for reason, messages in sorted(found.items()):
        status = str(USAGE) if reason in BAD_ARGUMENTS else "1"
        lines += [_row(_code(reason), status, _plain(message), _plain(hint)) for message, hint in messages.items()]
    refused = {
        (ast.unparse(call.args[0]).removeprefix("errno."), text)
        for call, texts in _calls(SOURCES / "core", "Refuse")
        if (text := _argument(call, 1, "reason", texts)) and ast.unparse(call.args[0]).startswith("errno.E")
    }
    lines += [
        "",
        "## Of a program's calls",
        "",
        "What bind, listen, connect and sends fail with where AppSwitch decides, and the reason that `observe` gives.",
        "What a policy denies is ECONNREFUSED, with the rule's name; what the network says is as it says it.",
        "",
        *_table("errno", "reason"),
        *(_row(name, _plain(text)) for name, text in sorted(refused)),
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    return re.sub(r"([<>*])", r"\\\1", text)


# --- control.md


def control_protocol() -> str:
    """The calls of the control socket."""
    lines = [
        NOTE,
        "# The control protocol",
        "",
        " ".join((inspect.getdoc(control) or "").split("\n\n")[0].split()),
        "",
        'A request is `{"call": NAME, FIELD: VALUE, ...}`, an answer `{"ok": VALUE}` or',
        '`{"error": {"reason", "message", "hint"}}`. What the answers hold is what the commands print as JSON',
        "([cli.md](../cli.md)). What changes something is done for callers in the host's network namespace only.",
        "",
    ]
    for call in get_args(control.Call):
        info = msgspec.inspect.type_info(call)
        assert isinstance(info, msgspec.inspect.StructType)
        lines += [f"## {info.tag}", "", " ".join((inspect.getdoc(call) or "").split()), ""]
        if info.fields:
            lines += _table("field", "type", "default")
            types = inspect.get_annotations(call)
            lines += [_row(_code(each.name), _type(str(types[each.name])), _default(each)) for each in info.fields]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _type(annotation: str) -> str:
    return _code(re.sub(r"Annotated\[(\w+), .*\]", r"\1", annotation).replace("None", "null"))


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "has to be there"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return _code(msgspec.json.encode(default).decode())


# --- all


def index() -> str:
    """What is there."""
    return "\n".join(
        [
            NOTE,
            "# Reference",
            "",
            "Made of the sources, so it says what the version beside it does.",
            "",
            "- [Commands](commands.md): each with its options and their defaults; as man pages, too",
            "  (`python -m appswitch.cli.manual DIR`)",
            "- [Environment and exit status](environment.md)",
            "- [What the commands print](../cli.md), field by field",
            "- [Errors](errors.md): of commands, and of programs' calls",
            "- [The control protocol](control.md)",
            "- [The policy file](../policy.md)",
            "- [The compose file](../compose.md#the-file), and [its schema](../compose.schema.json)",
            "- The trap protocol, between the preload library and the trap handler: [shim/wire.h](../../shim/wire.h)",
            "",
        ]
    )


def reference() -> dict[str, str]:
    """File -> what belongs there."""
    return {
        "README.md": index(),
        "commands.md": commands(),
        "environment.md": environment(),
        "errors.md": errors(),
        "control.md": control_protocol(),
    }


def main() -> None:
    """Writes the files, or with `--check` names those that differ, and ends with 1."""
    wrong = []
    for name, text in reference().items():
        file = REFERENCE / name
        if not file.exists() or file.read_text() != text:
            wrong.append(str(file))
            if "--check" not in sys.argv:
                REFERENCE.mkdir(exist_ok=True)
                file.write_text(text)
    sys.stdout.write("".join(f"{each}\n" for each in wrong))
    sys.exit("--check" in sys.argv and bool(wrong))


if __name__ == "__main__":
    main()
