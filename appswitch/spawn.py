"""`appswitch spawn`: gives a program an identity and waits for it.

It enters a new network namespace, sets it up, and registers it with the trap handler over a connection that is kept as
long as the app lives; then it runs the program in a child, with the shim preloaded (host/processes.py). Start-up
matters: nothing heavy is imported here.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host import elf, paths, processes, seccomp, systemd, tracer
from appswitch.host.control_client import ControlClient, connect
from appswitch.host.keeper import Keeper
from appswitch.host.processes import FAILED, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NOT_EXECUTABLE, NOT_FOUND = 126, 127
SILENT_FOR = 1.0  # seconds of waiting that need no word


class Options:
    """What `spawn` is told."""

    def __init__(
        self,
        command: list[str],
        *,
        ip: str | None = None,
        name: str | None = None,
        tags: list[str] | None = None,
        user: str | None = None,
        netns: bool = True,
        exclusive: bool = False,
        tcp: bool = False,
        exposes: list[str] | None = None,
        bypasses: list[str] | None = None,
        wait_for: list[str] | None = None,
        wait_timeout: float | None = None,
        socket: str | None = None,
        supervised: int | None = None,
        inside: int | None = None,
    ) -> None:
        self.command = command
        self.ip = ip
        self.name = name
        self.tags = tags or []
        self.user = user
        self.netns = netns
        self.exclusive = exclusive
        self.tcp = tcp
        self.exposes = exposes or []
        self.bypasses = bypasses or []
        self.wait_for = wait_for or []
        self.wait_timeout = wait_timeout
        self.socket = socket
        self.supervised = supervised
        """The pid of our parent: this ends with it, and all of the app's processes end with the program."""
        self.inside = inside
        """The pid of a `spawn`: the program becomes a part of its app, which has a namespace."""


def run(options: Options) -> int:
    """Runs the program; returns the exit status: its own, or 128+n. AppSwitchError when it can't be started."""
    trap = paths.trap_socket(options.socket)
    library = paths.preloadable(paths.shim_path())
    user = _User(options.user)
    command = _trappable(options.command)
    if options.inside is not None:
        _run_inside(options.inside, command, _environment(library, trap, user), user)
    _tie(options.supervised)
    client = _connect_or_start(trap)
    if options.wait_for:
        _wait_for(client, options.wait_for, options.wait_timeout)
    environment = _environment(library, trap, user)
    if options.netns:
        from appswitch.host import namespace

        keeper = _register_in_new_namespace(options, trap, user, client.call("ticket"))
        environment["APPSWITCH_APP"] = f"netns:{namespace.cookie():x}"
        client.close()
    else:
        answer = client.call("spawn", _arguments(options, user))
        _tell_exposed(answer)
        environment["APPSWITCH_APP"] = answer["token"]
        keeper = Keeper(trap, client, answer["token"])
        described = {
            "NAME": options.name,
            "IP": options.ip,
            "TAGS": ",".join(options.tags),
            "TCP": "1" * options.tcp,
            "BYPASS": " ".join(options.bypasses),
        }
        for key, value in described.items():
            if value:  # a trap handler that doesn't know our token learns from these who we are
                environment["APPSWITCH_" + key] = value
    _tie(options.supervised)  # again: a new user namespace may undo it
    wrapper = os.getpid()

    def become() -> NoReturn:
        systemd.hand_on(environment, wrapper)
        _become(command, environment, user)

    return processes.run(
        become,
        lambda: _say_gone(trap),
        keeper,
        whole=options.supervised is not None,
        passed=systemd.passed(os.environ),
    )


def _environment(library: str, trap: Path, user: _User) -> dict[str, str]:
    preloaded = ":".join(filter(None, [library, os.environ.get("LD_PRELOAD")]))
    return {**os.environ, **user.environment, "APPSWITCH_SOCKET": str(trap), "LD_PRELOAD": preloaded}


def _tie(parent: int | None) -> None:
    """Has this process end with its parent; at once when that has gone already."""
    if parent is not None:
        processes.die_with_parent()
        if os.getppid() != parent:
            os._exit(FAILED)


def _run_inside(app: int, command: list[str], environment: dict[str, str], user: _User) -> NoReturn:
    """Becomes the program, in the namespace of an app: that is what makes it one of its processes."""
    from appswitch.host import namespace

    try:
        namespace.join(app)
    except OSError as error:
        raise AppSwitchError("no-namespace", f"process {app} can't be joined: {error.strerror}") from None
    environment["APPSWITCH_APP"] = f"netns:{namespace.cookie():x}"
    _become(command, environment, user)


def _trappable(command: list[str]) -> list[str]:
    """The command, run by the tracer where LD_PRELOAD can't reach it."""
    obstacle = elf.find_obstacle(command[0])
    if obstacle and tracer.reaches(obstacle):
        tracer.way()
        return tracer.traced(command)
    if obstacle and obstacle.reason not in elf.NOT_RUN:
        tell(f"appswitch: warning: {obstacle.message}: its sockets can't be trapped, it has no network")
    return command


def _wait_for(client: ControlClient, services: list[str], patience: float | None) -> None:
    """Until all are served at once. AppSwitchError `not-served` after `patience` seconds; None: however long."""
    first = SILENT_FOR if patience is None else min(SILENT_FOR, patience)
    missing = client.call("wait-for", {"services": services, "timeout": first})
    if missing and first != patience:
        tell(f"appswitch: waiting for {', '.join(missing)}")
        rest = None if patience is None else patience - first
        missing = client.call("wait-for", {"services": services, "timeout": rest})
    if missing:
        reason = f"not served after {patience:g} s: {', '.join(missing)}"
        raise AppSwitchError(
            "not-served", reason, "`appswitch services` lists what is; --wait-timeout says how long to wait"
        )


class _User:
    """Who the program runs as."""

    def __init__(self, name: str | None) -> None:
        self.uid, self.gid = os.geteuid(), os.getegid()
        self.name = name
        self.environment: dict[str, str] = {}
        if name is None:
            return
        import pwd

        try:
            entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except KeyError:
            raise AppSwitchError("no-user", f"there is no user {name!r}") from None
        if os.geteuid() not in (0, entry.pw_uid):
            raise AppSwitchError("not-root", f"only root can run a program as user {name}", "leave --user out")
        self.name, self.uid, self.gid = entry.pw_name, entry.pw_uid, entry.pw_gid
        self.environment = {"USER": entry.pw_name, "LOGNAME": entry.pw_name, "HOME": entry.pw_dir}

    def become(self) -> None:
        """Changes this process to the user."""
        if self.name is None or os.geteuid() == self.uid:
            return
        os.initgroups(self.name, self.gid)
        os.setgid(self.gid)
        os.setuid(self.uid)


def _arguments(options: Options, user: _User) -> dict[str, object]:
    return {
        "name": options.name,
        "ip": options.ip,
        "tags": options.tags,
        "command": [os.fsencode(word).decode(errors="replace") for word in options.command],
        "exclusive": options.exclusive,
        "tcp": options.tcp,
        "exposes": options.exposes,
        "bypasses": options.bypasses,
        "netns": options.netns,
        "uid": user.uid,
    }


def _register_in_new_namespace(options: Options, trap: Path, user: _User, ticket: str) -> Keeper:
    from appswitch.host import furnishing, namespace

    try:
        namespace.enter_new_namespace()
    except namespace.NamespaceForbidden as error:
        hint = "run it with --no-netns: same service, but nothing keeps the program from the host's network"
        raise AppSwitchError("no-namespace", str(error), hint) from None
    keeper, answer = furnishing.furnish(trap, {**_arguments(options, user), "ticket": ticket})
    _tell_exposed(answer)
    return keeper


def _tell_exposed(answer: dict[str, list[str]]) -> None:
    for line in answer["exposed"]:
        tell(f"appswitch: {line}")


def _become(command: list[str], environment: dict[str, str], user: _User) -> NoReturn:
    """Becomes the program, in the child."""
    status = FAILED
    try:
        seccomp.refuse_io_uring()  # before the capability for it is gone
        user.become()
        processes.die_with_parent()
        os.execvpe(command[0], command, environment)
    except OSError as error:
        status = NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
        tell(f"appswitch: {command[0]}: {error.strerror}")
    except Exception as error:  # nobody is left to show it
        tell(f"appswitch: {command[0]}: {type(error).__name__}: {error}")
    finally:
        os._exit(status)


def _say_gone(trap: Path) -> None:
    tell(
        f"appswitch: the trap handler at {trap} has gone: connections go on, new ones wait a few seconds for another\n"
        "hint: start it again, and it takes this program back"
    )


def _connect_or_start(trap: Path) -> ControlClient:
    """A connection to the trap handler; where there is none, one is started for this user."""
    client = connect(trap)
    if client is not None:
        return client
    from appswitch.host import background

    return background.start_server(trap)
