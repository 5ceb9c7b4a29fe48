"""Addresses, sizes and pointers that a program shouldn't give: the kernel's own answer is ours, and nothing crashes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.harness import running_switch
from tests.shim.cases import PROGRAMS, VIP, compile_c

CALLS = 3000
SEEDS = (1, 2)
HERE = Path(__file__).parent / "native"

# What is said instead of what TCP says: docs/compatibility.md has the first two lines; a Unix socket says the others of
# an address of another family; and of a first send after the peer's close nobody looks at the data.
OTHERWISE = {
    ("ENOTCONN", "EINVAL"),
    ("EPIPE", "ENOTCONN"), ("EPIPE", "EOPNOTSUPP"), ("EPIPE", "EINVAL"),
    ("EAFNOSUPPORT", "EINVAL"), ("EAFNOSUPPORT", "ECONNREFUSED"), ("EAFNOSUPPORT", "ENOENT"),
    ("EISCONN", "EINVAL"), ("EISCONN", "ECONNREFUSED"), ("EISCONN", "ENOENT"), ("EISCONN", "EPROTOTYPE"),
    ("EINVAL", "EAFNOSUPPORT"), ("EINVAL", "ECONNREFUSED"), ("EINVAL", "ENOENT"),
}  # fmt: skip


def is_fine(call: str, plain: str, trapped: str) -> bool:
    if plain == trapped or (plain, trapped) in OTHERWISE:
        return True
    if call.startswith("accepted tcp send"):
        return plain == "EFAULT"
    if "bind family 1 " in call and ", 2 bytes" in call:  # unix(7), "Autobind": it has its name
        return (plain, trapped) == ("EINVAL", "fine")
    # two things are wrong at once: which of them is told?
    return "opt " in call and "fine" not in (plain, trapped) and "EFAULT" in (plain, trapped)


def outcomes(output: str) -> dict[str, tuple[str, str]]:
    """By its number, what each call was and how it ended. The lines after a call belong to it."""
    found = {}
    for text in ("\n" + output).replace("\n ", " ").split("\n")[1:-1]:
        number, _, call = text.partition(" ")
        found[number] = call.rpartition(": ")[0], call.rpartition(": ")[2]
    return found


@pytest.mark.program("gcc")
def test_what_is_wrong_is_the_kernels_error_and_no_crash(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    program, plainly = tmp_path / "arguments", tmp_path / "plain"
    compile_c(HERE / "arguments.c", program)
    compile_c(PROGRAMS / "plain.c", plainly)
    with running_switch() as switch:
        for seed in SEEDS:
            words = [str(program), str(seed), str(CALLS)]
            plain = subprocess.run(
                [plainly, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=True
            )
            trapped = switch.run("--ip", VIP, *words, timeout=100)
            wanted, got = outcomes(plain.stdout), outcomes(trapped.stdout)
            assert len(got) == len(wanted) == CALLS
            wrong = [
                f"seed {seed}, {number} {call}: {outcome}, not {wanted[number][1]}"
                for number, (call, outcome) in got.items()
                if not is_fine(call, wanted[number][1], outcome)
            ]
            assert not wrong, "\n".join(wrong[:20])
