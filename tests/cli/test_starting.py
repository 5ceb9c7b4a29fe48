"""`spawn`'s command line is read twice: what is plain without click, everything by click. The two must agree."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.cli import starting
from appswitch.cli.spawn import spawn
from appswitch.spawn import Options
from tests.harness import Switch

OPTIONS = [*starting.FLAGS, *starting.LISTS, *starting.VALUES]
VALUES = ["web", "10.1.1.1", "", "-", "--", "a=b", "8080", "1.5", "-1", "nan", "inf", "1_0", "--name", "é", "\udcff"]
WORDS = st.one_of(
    st.sampled_from([*OPTIONS, "--", "-h", "--help", "--nam", "-x", "-", "true"]),
    st.sampled_from(VALUES),
    st.builds("{}={}".format, st.sampled_from([*OPTIONS, "-"]), st.sampled_from(VALUES)),
)


def read_by_click(words: list[str]) -> dict[str, Any] | None:
    """What click makes of them; None: nothing is started."""
    read: list[Options] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "start", read.append)
        try:
            spawn.main(list(words), standalone_mode=False)
        except click.ClickException:
            return None
    return vars(read[0]) if read else None


@given(st.lists(WORDS, max_size=6))
@example(["--name", "web", "--tag", "a=b", "--tag=c=d", "--no-netns", "--wait-timeout", "3", "--", "echo", "--ip"])
@example(["--supervised", "12", "--inside=7", "--tcp", "--exclusive", "-", "x"])
@example(["--wait-timeout", "nan", "true"])
def test_what_is_read_without_click_is_what_click_reads(words: list[str]) -> None:
    options = starting.read(words)
    if options is not None:
        assert vars(options) == read_by_click(words)


@pytest.mark.parametrize(
    "words", [[], ["--"], ["--name"], ["--help"], ["--wait-timeout", "soon", "x"], ["--tcp=1", "x"]]
)
def test_mistakes_and_help_are_clicks(words: list[str]) -> None:
    assert starting.read(words) is None
    assert read_by_click(words) is None


def test_every_option_is_read_without_click() -> None:
    declared = {name for each in spawn.params if isinstance(each, click.Option) for name in each.opts}
    assert declared == set(OPTIONS)
    for option in OPTIONS:
        words = [option, *([] if option in starting.FLAGS else ["1"]), "true"]
        options = starting.read(words)
        assert options is not None
        assert vars(options) == read_by_click(words)


def imports(switch: Switch, *words: str) -> set[str]:
    """The modules that an interpreter imports."""
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=switch.environment)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_spawns_imports_are_few(switch: Switch) -> None:
    """Start-up matters. `true` is no Python program, so what is seen is what `spawn` itself imports."""
    code = "import sys; from appswitch.cli.main import main; sys.argv = ['appswitch', 'spawn', '--name', 'x', 'true']\n"
    imported = imports(switch, "-c", code + "main()") - imports(switch, "-c", "pass")
    assert "appswitch.host.furnishing" in imported
    assert not {"appswitch._wire", "appswitch.model", "asyncio", "attr", "click", "dns", "inspect", "msgspec",
                "shutil", "structlog", "subprocess", "trio", "typing"} & imported  # fmt: skip
