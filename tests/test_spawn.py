"""`appswitch spawn`: the wrapper is not noticed, however the program or the wrapper ends."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host import namespace
from appswitch.host.control_client import connect
from appswitch.host.paths import control_socket, shim_path
from tests.harness import PATIENCE, Switch, eventually, has_ended, running_switch, stop

NOBODY = 65534
BOTH = pytest.mark.parametrize("netns", [[], ["--no-netns"]], ids=["netns", "no netns"])


def shell(switch: Switch, script: str, *flags: str, **options: Any) -> subprocess.Popen[str]:
    """`sh -c SCRIPT`, once it has said its first line."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    process = switch.spawn(*flags, "sh", "-c", script, **options)
    assert output(process).readline() == "ready\n"
    return process


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def end_of(process: subprocess.Popen[str]) -> tuple[str, int]:
    """What it still says, and its exit status."""
    said, _ = process.communicate(timeout=PATIENCE)
    return said, process.returncode


def first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def keeper_of(process: subprocess.Popen[str]) -> int:
    return first_child(process.pid)


def child_of(process: subprocess.Popen[str]) -> int:
    """The program: the keeper's child."""
    return first_child(keeper_of(process))


# --- exit statuses


@BOTH
@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 255", 255),
                           ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9), ("kill -SEGV $$", 128 + 11)]
)  # fmt: skip
def test_it_ends_as_the_program_ends(switch: Switch, netns: list[str], script: str, status: int) -> None:
    done = switch.run(*netns, "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


@pytest.mark.parametrize(
    ("make", "status"),
    [
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("{tmp}/plain/below", 127),
        ("{tmp}/plain", 126),
        ("{tmp}", 126),
    ],
)
def test_what_can_t_be_run(switch: Switch, make: str, status: int) -> None:
    (switch.directory / "plain").write_text("echo no")
    command = make.format(tmp=switch.directory)
    done = switch.run(command, check=False)
    assert done.returncode == status
    assert done.stderr.startswith(f"appswitch: {command}: ")
    assert "Traceback" not in done.stderr
    eventually(lambda: switch.rows("ps") == [])


def test_our_own_failure_is_125_and_wrong_usage_2(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", "sleep", "99")
    eventually(lambda: switch.rows("ps"))
    assert switch.run("--name", "web", "--ip", "10.9.9.2", "true", check=False).returncode == 125
    assert switch.run("--ip", "nonsense", "true", check=False).returncode == 2
    assert switch.run("--no-such-flag", "true", check=False).returncode == 2


def test_whatever_keeps_a_program_from_starting_is_said() -> None:
    code = r"from appswitch import spawn; spawn._become(['true', 'a\0b'], {}, spawn._User(None))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (125, "appswitch: true: ValueError: embedded null byte\n")


def test_a_killed_keeper_takes_the_program_along(switch: Switch) -> None:
    process = shell(switch, "echo ready; exec sleep 99")
    keeper, program = keeper_of(process), child_of(process)
    os.kill(keeper, signal.SIGKILL)
    assert end_of(process)[1] == 128 + 9
    eventually(lambda: has_ended(program), within=1)


def test_signals_to_the_keeper_reach_the_program(switch: Switch) -> None:
    process = shell(switch, "trap 'exit 7' TERM; sleep 99 > /dev/null 2>&1 & echo ready; wait")
    os.kill(keeper_of(process), signal.SIGTERM)
    assert end_of(process)[1] == 7


# --- an app is a process tree


@BOTH
def test_what_the_program_leaves_behind_is_still_the_app(switch: Switch, netns: list[str]) -> None:
    """A job in the background that has used no socket yet: it is listed, finds names, and reaches services."""
    code = "import socket; s = socket.create_server(('', 80)); c, _ = s.accept(); c.sendall(b'hello')"
    switch.spawn("--name", "web", sys.executable, "-c", code)
    switch.wait_for("web:80")
    out, fifo = switch.directory / "out", switch.directory / "fifo"
    os.mkfifo(fifo)
    client = "import socket; print(socket.create_connection(('web', 80)).recv(9).decode())"
    script = f'(read go < {fifo}; {sys.executable} -c "{client}" > {out} 2>&1) > /dev/null 2>&1 & echo started'
    done = switch.run("--name", "late", *netns, "sh", "-c", script)
    assert done.stdout == "started\n", "its output is not held up either"
    assert [row["name"] for row in switch.rows("ps")] == ["web", "late"]
    fifo.write_text("go\n")
    eventually(lambda: out.exists() and out.read_text() == "hello\n")
    eventually(lambda: switch.rows("ps") == [])


def test_a_daemon_keeps_the_trap_handler_that_was_started_for_it(no_server: Switch) -> None:
    script = "setsid sh -c 'sleep 3; exec sleep 99' > /dev/null 2>&1 & echo $!"
    daemon = int(no_server.run("--name", "late", "sh", "-c", script).stdout)
    try:
        time.sleep(2.5)  # longer than an idle one lingers: nothing announces that it has not gone
        assert [row["name"] for row in no_server.rows("ps")] == ["late"]
    finally:
        os.kill(daemon, signal.SIGKILL)
    eventually(lambda: server_has_gone(no_server))


def test_the_end_of_the_trap_handler_is_said(switch: Switch) -> None:
    process = shell(switch, "echo ready; read line; echo $line", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr
    assert process.stdin
    stop(switch.server)
    assert "has gone" in process.stderr.readline()
    assert "hint:" in process.stderr.readline()
    assert process.communicate("on\n", timeout=PATIENCE)[0] == "on\n"


def test_a_closed_stderr_changes_nothing(switch: Switch) -> None:
    for program, status in (("true", 0), ("no-such-program", 127)):
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *switch.appswitch, "spawn", program]
        done = subprocess.run(
            command, env=switch.environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False, timeout=30
        )
        assert (done.returncode, done.stdout) == (status, b"")


def test_the_programs_input_and_output_are_its_own(switch: Switch) -> None:
    done = switch.run("sh", "-c", "cat; echo error >&2", input="text\n")
    assert (done.stdout, done.stderr) == ("text\n", "error\n")


# --- signals


@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_signals_are_passed_on(switch: Switch, netns: list[str], number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    process = shell(switch, f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done", *netns)
    process.send_signal(number)
    assert end_of(process) == (f"got {name}\n", 7)


def test_a_signal_that_the_program_doesn_t_handle(switch: Switch) -> None:
    process = shell(switch, "echo ready; exec sleep 99")
    process.terminate()
    assert end_of(process) == ("", 128 + 15)


def test_a_program_that_ignores_a_signal_goes_on(switch: Switch) -> None:
    process = shell(
        switch, "trap '' TERM; trap 'echo still here; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    )
    process.terminate()
    process.send_signal(signal.SIGUSR1)
    assert end_of(process) == ("still here\n", 3)


def test_the_programs_signal_state_is_the_callers(switch: Switch) -> None:
    """Nothing blocked, nothing ignored: what Python and the wrapper do to themselves is theirs."""
    lines = switch.run("grep", "-E", "^Sig(Blk|Ign)|^ShdPnd", "/proc/self/status").stdout.splitlines()
    assert {line.split()[0]: int(line.split()[1], 16) for line in lines} == {"SigBlk:": 0, "SigIgn:": 0, "ShdPnd:": 0}


def test_no_descriptor_of_ours_reaches_the_program(switch: Switch) -> None:
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    assert switch.run(sys.executable, "-c", code).stdout == "[0, 1, 2, 3]\n"  # 3 is that of listdir


@BOTH
def test_a_killed_wrapper_takes_the_program_down(switch: Switch, netns: list[str]) -> None:
    process = shell(switch, "echo ready; exec sleep 99", *netns, "--name", "web")
    program = child_of(process)
    assert not has_ended(program)
    process.kill()
    assert end_of(process)[1] == -9
    eventually(lambda: has_ended(program), within=1)
    eventually(lambda: switch.rows("ps") == [], within=1.5)  # a second, and the command's own start


@BOTH
def test_a_killed_wrapper_takes_all_of_it_down(switch: Switch, netns: list[str]) -> None:
    """Children, and a grandchild that has left its session."""
    script = "sleep 99 & (setsid sh -c 'echo $$; exec sleep 99' &) ; echo $!; echo ready; exec sleep 99"
    process = switch.spawn(*netns, "--name", "web", "sh", "-c", script, stdout=subprocess.PIPE)
    said = {output(process).readline().strip() for _ in range(3)}
    workers = [int(pid) for pid in said - {"ready"}]
    assert len(workers) == 2
    assert not any(has_ended(pid) for pid in workers)
    process.kill()
    eventually(lambda: all(has_ended(pid) for pid in workers))
    eventually(lambda: switch.rows("ps") == [])


def test_a_killed_program(switch: Switch) -> None:
    process = shell(switch, "echo ready; exec sleep 99", "--name", "web")
    os.kill(child_of(process), signal.SIGKILL)
    assert end_of(process) == ("", 128 + 9)
    eventually(lambda: switch.rows("ps") == [], within=1.5)


def test_a_program_killed_while_it_serves(switch: Switch) -> None:
    code = "import socket; s = socket.create_server(('', 80)); print('ready', flush=True); s.accept()"
    command = ("--name", "web", sys.executable, "-c", code)
    process = switch.spawn(*command, stdout=subprocess.PIPE)
    assert output(process).readline() == "ready\n"
    assert len(switch.rows("services")) == 1
    os.kill(child_of(process), signal.SIGKILL)
    assert end_of(process)[1] == 128 + 9
    eventually(lambda: switch.rows("services") == [], within=1.5)


# --- what the program is given


def test_the_environment(switch: Switch) -> None:
    text = switch.run("env", "-0", env={**switch.environment, "KEPT": "a\nb"}).stdout
    environment = dict(entry.split("=", 1) for entry in text.split("\0") if entry)
    assert environment["KEPT"] == "a\nb"
    assert environment["LD_PRELOAD"] == str(shim_path())
    assert environment["APPSWITCH_SOCKET"] == str(switch.trap)


@pytest.mark.program("gcc")
def test_another_preload_library_is_kept(switch: Switch) -> None:
    library = switch.directory / "other.so"
    source = 'int other_library = 1; __attribute__((constructor)) static void f(void) { __builtin_puts("loaded"); }'
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source.encode(), check=True)
    environment = {**switch.environment, "LD_PRELOAD": str(library)}
    code = "import os; print(os.environ['LD_PRELOAD'])"
    process = subprocess.run(
        [*switch.appswitch, "spawn", sys.executable, "-c", code], capture_output=True, text=True, env=environment,
        check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert f"{shim_path()}:{library}\n" in process.stdout
    assert process.stdout.count("loaded") == 2  # in the wrapper and in the program


def test_arguments_and_directory_are_passed_as_they_are(switch: Switch) -> None:
    code = "import os, sys; print([os.fsencode(word) for word in sys.argv[1:]], os.getcwd())"
    arguments = ["", "a b", "ä", os.fsdecode(b"\xff"), "--ip", "$HOME"]
    done = switch.run(sys.executable, "-c", code, *arguments, cwd="/usr")
    assert done.stdout == f"{[os.fsencode(word) for word in arguments]} /usr\n"
    assert switch.rows("ps") == []


def test_a_namespace_of_its_own_or_not(switch: Switch) -> None:
    ours = str(Path("/proc/self/ns/net").readlink())
    assert switch.run("--no-netns", "readlink", "/proc/self/ns/net").stdout.strip() == ours
    theirs = switch.run("readlink", "/proc/self/ns/net").stdout.strip()
    assert theirs.startswith("net:")
    assert theirs != ours


SHOW = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[0], len(socket.if_nameindex()))"


def test_nothing_but_lo_is_in_the_namespace(switch: Switch) -> None:
    assert switch.run(sys.executable, "-c", SHOW).stdout == "0.0.0.0 1\n"


@pytest.mark.root
@BOTH
@pytest.mark.parametrize("user", ["nobody", str(NOBODY)])
def test_user(switch: Switch, netns: list[str], user: str) -> None:
    code = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ['USER'], os.environ['HOME'])"
    done = switch.run("--user", user, *netns, "/usr/bin/python3", "-c", code)
    expected = (NOBODY,) * 3
    assert done.stdout == f"{expected} {expected} [{NOBODY}] nobody /nonexistent\n"


@pytest.mark.root
def test_a_program_of_another_user_is_trapped_and_dies_with_its_wrapper(switch: Switch) -> None:
    """Changing the user clears the parent-death signal (prctl(2)): it is set after that."""
    code = "import socket; s = socket.create_server(('', 80)); print('ready', flush=True); s.accept()"
    command = ("--user", "nobody", "--name", "web", "/usr/bin/python3", "-c", code)
    process = switch.spawn(*command, stdout=subprocess.PIPE)
    assert output(process).readline() == "ready\n"
    (service,) = switch.rows("services")
    assert (service["name"], service["port"]) == ("web", 80)
    program = child_of(process)
    process.kill()
    end_of(process)
    eventually(lambda: has_ended(program), within=1)


# --- namespaces in the namespace


@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["netns", "no netns"])
@pytest.mark.parametrize("user", [None, pytest.param(NOBODY, marks=pytest.mark.root)])
def test_spawn_inside_a_spawned_program(user: int | None, flags: list[str]) -> None:
    """An app makes no other app: it could give itself any identity."""
    with running_switch(user=user) as switch:
        done = switch.run(*switch.appswitch, "spawn", *flags, "true", check=False)
        assert (done.returncode, done.stdout) == (125, "")
        assert "this can't be done from inside app 1\nhint: " in done.stderr


# --- exclusive, wait-for

SERVE = "import socket, sys; s = socket.create_server(('', 80)); print('ready', flush=True); sys.stdin.read()"


def serving(switch: Switch, *flags: str, **options: Any) -> subprocess.Popen[str]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
    process = switch.spawn(*flags, sys.executable, "-c", SERVE, **options)
    assert output(process).readline() == "ready\n"
    return process


def test_exclusive(switch: Switch) -> None:
    """Either of the two may have asked for it; and it ends with its app."""
    first = serving(switch, "--name", "one", "--exclusive")
    done = switch.run("--name", "one", sys.executable, "-c", SERVE, check=False)
    assert "Address already in use" in done.stderr
    assert end_of(first)[1] == 0
    second = serving(switch, "--name", "one")
    third = serving(switch, "--name", "one")
    done = switch.run("--name", "one", "--exclusive", sys.executable, "-c", SERVE, check=False)
    assert "Address already in use" in done.stderr
    assert [end_of(second)[1], end_of(third)[1]] == [0, 0]


def test_wait_for(switch: Switch) -> None:
    waiting = switch.spawn(
        "--wait-for", "db:80", "--wait-for", "10.1.1.5:80", "echo", "started",
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    first = serving(switch, "--name", "db")
    assert len(switch.rows("ps")) == 1  # who waits is no app yet
    assert waiting.poll() is None
    second = serving(switch, "--ip", "10.1.1.5")
    assert end_of(waiting) == ("started\n", 0)
    end_of(first)
    end_of(second)


def test_a_wait_can_be_broken_off(switch: Switch) -> None:
    waiting = switch.spawn("--wait-for", "db:80", "true", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: waits(waiting))
    waiting.send_signal(signal.SIGINT)
    _, error = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 130
    assert "Traceback" not in error


def test_a_wait_says_what_for(switch: Switch) -> None:
    """After a second, and only of what is missing; then it goes on as before."""
    first = serving(switch, "--name", "one")
    waiting = switch.spawn("--wait-for", "one:80", "--wait-for", "db:80", "--wait-timeout", "60", "echo", "started",
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert waiting.stderr
    assert waiting.stderr.readline() == "appswitch: waiting for db:80\n"
    second = serving(switch, "--name", "db")
    assert waiting.communicate(timeout=PATIENCE) == ("started\n", "")
    end_of(first)
    end_of(second)


@pytest.mark.parametrize("timeout", ["0", "0.2", "1.1"])
def test_a_wait_ends_with_the_time(switch: Switch, timeout: str) -> None:
    first = serving(switch, "--name", "one")
    wanted = ["--wait-for", "one:80", "--wait-for", "db:80", "--wait-for", "web:81"]
    done = switch.run(*wanted, "--wait-timeout", timeout, "echo", "started", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert f"not served after {timeout} s: db:80, web:81\n" in done.stderr
    assert "hint: " in done.stderr
    assert ("waiting for db:80, web:81" in done.stderr) == (timeout == "1.1")
    assert switch.run("--wait-for", "one:80", "--wait-timeout", timeout, "echo", "x").stdout == "x\n"
    end_of(first)


def test_a_wait_for_services_that_come_and_go(switch: Switch) -> None:
    """It isn't over until all are there at once."""
    waiting = switch.spawn("--wait-for", "db:80", "--wait-for", "web:80", "echo", "started",
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
    eventually(lambda: waits(waiting))
    end_of(serving(switch, "--name", "db"))
    eventually(lambda: not switch.rows("services"))
    web = serving(switch, "--name", "web")
    assert waiting.poll() is None
    db = serving(switch, "--name", "db")
    assert end_of(waiting) == ("started\n", 0)
    end_of(web)
    end_of(db)


def test_the_trap_handler_goes_while_a_program_waits(switch: Switch) -> None:
    waiting = switch.spawn("--wait-for", "db:80", "true", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    eventually(lambda: waits(waiting))
    switch.server.terminate()
    _, error = waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 125
    assert "the trap handler closed the connection" in error


def waits(process: subprocess.Popen[str]) -> bool:
    """Whether it is in a blocking receive."""
    return Path(f"/proc/{process.pid}/wchan").read_text().startswith(("unix_stream", "sock_"))


# --- a server that is started when there is none


@pytest.fixture
def no_server(tmp_path: Path) -> Iterator[Switch]:
    tmp_path.chmod(0o755)
    switch = Switch(tmp_path)
    try:
        yield switch
    finally:
        switch.close()
        eventually(lambda: not is_served(switch))


def is_served(switch: Switch) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(control_socket(switch.trap))) == 0


def server_has_gone(switch: Switch) -> bool:
    with switch.trap.with_name(switch.trap.name + ".lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_server_is_started_and_goes_with_its_last_app(no_server: Switch) -> None:
    done = no_server.run("sh", "-c", f"{' '.join(no_server.appswitch)} ps --no-headers")
    assert len(done.stdout.splitlines()) == 1
    assert str(no_server.trap) in done.stderr
    assert "starting one" in done.stderr
    eventually(lambda: server_has_gone(no_server), within=5)
    assert not no_server.trap.exists()
    assert not control_socket(no_server.trap).exists()


def test_the_server_stays_while_there_are_apps(no_server: Switch) -> None:
    first = serving(no_server, "--name", "one", stderr=None)
    done = no_server.run("true")
    assert "starting" not in done.stderr
    eventually(lambda: len(no_server.rows("ps")) == 1)
    assert not server_has_gone(no_server)
    assert end_of(first)[1] == 0
    eventually(lambda: server_has_gone(no_server), within=5)


def test_two_spawns_at_once_start_one_server(no_server: Switch) -> None:
    several = [
        no_server.spawn("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)
    ]
    eventually(lambda: is_served(no_server) and len(no_server.rows("ps")) == 4)
    errors = [process.communicate("text\n", timeout=PATIENCE) for process in several]
    assert [said for said, _ in errors] == ["text\n"] * 4
    assert sum("starting one" in error for _, error in errors) == 1
    assert [process.returncode for process in several] == [0] * 4
    eventually(lambda: server_has_gone(no_server), within=5)


def test_the_restart_of_a_server_is_waited_for(switch: Switch) -> None:
    """It may belong to a cluster, have a policy, ...: what `spawn` would start has none of that."""
    switch.server.terminate()
    switch.server.wait()
    early = switch.spawn("echo", "hello", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert early.stderr
    assert "waiting 5 s for another" in early.stderr.readline()
    switch.serve()
    assert early.communicate(timeout=PATIENCE) == ("hello\n", "")


def test_who_comes_too_late_to_start_a_server_uses_the_one_that_is_there(
    no_server: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appswitch.host import background

    answers = iter([False])  # nobody was there when it was looked
    no_server.serve("--exit-when-idle")
    with monkeypatch.context() as patch:
        patch.setattr(background, "connect", lambda trap: connect(trap) if next(answers, True) else None)
        patch.setattr("subprocess.Popen", lambda *_, **__: None)  # it finds the place taken, and ends
        background.start_server(no_server.trap).close()


def test_a_server_that_can_t_start_says_why(no_server: Switch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = no_server.run("--socket", str(tmp_path / "file" / "trap.sock"), "true", check=False)
    assert done.returncode == 125
    assert "can't be used" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    no_server.trap.mkdir()  # in the socket's place: it can't be replaced
    done = no_server.run("true", check=False)
    assert done.returncode == 125
    assert "didn't start" in done.stderr
    assert "hint: " in done.stderr
    no_server.trap.rmdir()


# --- an ordinary user


@pytest.mark.root
def test_an_ordinary_user_gets_a_namespace_and_keeps_who_they_are() -> None:
    with running_switch(user=NOBODY) as switch:
        code = f"""
import json, os, socket
open({str(switch.directory / "made")!r}, "w").close()
server = socket.create_server(("", 80))  # a low port, too
print(json.dumps([os.getuid(), os.getgid(), os.stat({str(switch.directory)!r}).st_uid, len(socket.if_nameindex())]))
"""
        done = switch.run("--ip", "10.1.1.1", switch.appswitch[0], "-c", code)
        assert json.loads(done.stdout) == [NOBODY, NOBODY, NOBODY, 1]
        made = (switch.directory / "made").stat()
        assert (made.st_uid, made.st_gid) == (NOBODY, NOBODY)
        done = switch.run("--user", "root", "true", check=False)
        assert done.returncode == 125
        assert "only root" in done.stderr


@pytest.mark.root
def test_an_ordinary_users_apps_meet() -> None:
    with running_switch(user=NOBODY) as switch:
        code = "import socket; c = socket.create_server(('', 80)).accept()[0]; c.sendall(c.getpeername()[0].encode())"
        switch.spawn("--name", "web", switch.appswitch[0], "-c", code)
        switch.wait_for("web:80")
        code = "import socket; print(socket.create_connection(('web', 80)).recv(99).decode())"
        assert switch.run("--ip", "10.1.1.2", switch.appswitch[0], "-c", code).stdout == "10.1.1.2\n"


FORBIDDEN = """
import os, sys
from pathlib import Path
from appswitch.host import namespace
from appswitch.cli.main import main
assert namespace._unshare(namespace.CLONE_NEWUSER) == 0  # a user namespace of the test's own: its limits are, too
Path("/proc/sys/user/max_net_namespaces").write_text("0")
sys.argv = ["appswitch", "spawn", *sys.argv[1:]]
main()
"""


@pytest.mark.root
def test_where_namespaces_are_forbidden() -> None:
    with running_switch(user=NOBODY) as switch:
        done = subprocess.run(
            [switch.appswitch[0], "-c", FORBIDDEN, "true"],
            capture_output=True, text=True, check=False, timeout=PATIENCE, env=switch.environment,
            user=NOBODY, group=NOBODY, extra_groups=[],
        )  # fmt: skip
        assert done.returncode == 125, done
        assert "namespace" in done.stderr
        assert "hint: " in done.stderr
        assert "--no-netns" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_kernel_that_takes_the_capabilities_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppArmor lets unshare pass; then /proc/self/uid_map can't be written."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(namespace, "_unshare", lambda flags: 0)

    def refuse(path: Path, text: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(namespace.NamespaceForbidden, match=r"user 1000: Operation not permitted"):
        namespace.enter_new_namespace()


def test_an_installation_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from appswitch import spawn

    monkeypatch.setattr("appswitch.host.paths.shim_path", lambda: tmp_path / "libappswitch.so")
    with pytest.raises(AppSwitchError) as error:
        spawn.run(spawn.Options(["true"]))
    assert error.value.reason == "no-shim"
    assert error.value.hint


@pytest.mark.parametrize("directory", ["a b", "a:b"])
def test_an_installation_that_ld_preload_can_t_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, directory: str
) -> None:
    from appswitch import spawn

    library = tmp_path / directory / "libappswitch.so"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setattr("appswitch.host.paths.shim_path", lambda: library)
    with pytest.raises(AppSwitchError, match=directory) as error:
        spawn.run(spawn.Options(["true"]))
    assert error.value.reason == "bad-shim-path"
