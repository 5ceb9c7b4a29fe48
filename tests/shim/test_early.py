"""Calls before the shim's constructor has run."""

from __future__ import annotations

from tests.harness import Switch
from tests.shim.cases import VIP, Build


def test_another_librarys_constructor_connects(switch: Switch, build: Build) -> None:
    """The dynamic linker runs the constructors of what is named last in LD_PRELOAD first."""
    early = build("early", "-shared", "-fPIC")
    for preload in (str(early), f"{early}:"):
        done = switch.run("--ip", VIP, "env", f"LD_PRELOAD={preload}", str(build("probe")))
        assert done.stdout.startswith("called early\n")
        assert done.stdout.endswith("\ntrapped\n")
