"""What processes cost."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import costs


@pytest.mark.parametrize(("more", "expected"), [(["spawn"], True), (["respawn"], False), ([], False)])
def test_spawn_is_known_by_a_word_of_its_command(more: list[str], expected: bool) -> None:
    command = ["sh", "-c", "echo; read spawn", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()  # during its exec a process has no command
        assert costs.is_spawn(process.pid) is expected
        process.stdin.close()
        process.wait(5)
        assert not costs.is_spawn(process.pid)
