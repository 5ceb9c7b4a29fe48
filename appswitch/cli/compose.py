"""`appswitch compose`: a project's programs, from its file."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import datetime
from functools import wraps
from typing import Any

import click

from appswitch.cli.log_lines import Printer
from appswitch.cli.options import Seconds, socket_option
from appswitch.cli.show import formats, show
from appswitch.compose import document, launch, load
from appswitch.compose.describe import described
from appswitch.compose.home import Home
from appswitch.compose.logbook import Line, last_lines
from appswitch.compose.plan import Change, Instance
from appswitch.compose.project import Project, check_name
from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient, HandlerGoneError
from appswitch.host.paths import trap_socket
from appswitch.host.processes import tell

FILE_ENDS = (".yaml", ".yml")
NOTES = 100
"""Lines of the log in which notes of the start are looked for."""


class Chosen:
    """Which project: what the options that all commands have say."""

    def __init__(
        self,
        files: tuple[str, ...],
        name: str | None,
        profiles: tuple[str, ...],
        env_file: str | None,
        socket: str | None,
    ) -> None:
        self.files = files
        self.name = name
        self.profiles = profiles
        self.env_file = env_file
        self.socket = socket

    def project(self, services: tuple[str, ...] = (), scales: dict[str, int] | None = None) -> Project:
        """As its file says. AppSwitchError."""
        return load.load(load.find_files(self.files), self.name, self.profiles, self.env_file, _warn, services, scales)

    def home(self) -> Home:
        """Of the project; a name is enough, a file isn't needed then."""
        name = self.name or load.project_name(load.find_files(self.files), None, self.env_file)
        return Home(trap_socket(self.socket), check_name(name))


def project_options(
    file_flags: tuple[str, ...] = ("-f", "--file"),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options that say which project; the command gets a Chosen as `chosen`. They may stand before it, too."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def with_chosen(
            files: tuple[str, ...],
            project_name: str | None,
            profile: tuple[str, ...],
            env_file: str | None,
            socket: str | None,
            **others: Any,
        ) -> None:
            before: Chosen = click.get_current_context().obj or Chosen((), None, (), None, None)
            chosen = Chosen(
                files or before.files,
                project_name or before.name,
                profile or before.profiles,
                env_file or before.env_file,
                socket or before.socket,
            )
            function(chosen=chosen, **others)

        decorated: Callable[..., Any] = with_chosen
        for option in (
            socket_option,
            click.option("--env-file", metavar="FILE", help="Of variables, instead of .env beside the file."),
            click.option(
                "--profile", metavar="PROFILE", multiple=True, help="Services of this profile, too; * of all."
            ),
            click.option("-p", "--project-name", metavar="NAME", help="By default the file's, or its directory's."),
            click.option(
                *file_flags,
                "files",
                metavar="FILE",
                multiple=True,
                help="By default compose.yaml here or above; several: one upon the other.",
            ),
        ):
            decorated = option(decorated)
        return decorated

    return decorate


@click.group()
@project_options()
@click.pass_context
def compose(context: click.Context, chosen: Chosen) -> None:
    """Run the programs of a Compose file, each with an identity of its own.

    Programs that are on this host, not images: docs/compose.md.
    """
    context.obj = chosen


@compose.command()
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@click.option("-d", "--detach", is_flag=True, help="In the background: return once all is started.")
@click.option("--wait", is_flag=True, help="In the background: return once all is healthy.")
@click.option("--wait-timeout", metavar="SECONDS", type=Seconds(), help="Then give up, and stop all.")
@click.option("--scale", "scales", metavar="SERVICE=N", multiple=True, help="So many programs of a service.")
@click.option("--remove-orphans", is_flag=True, help="Stop services that run and that the file doesn't have any more.")
@click.option("--no-color", is_flag=True, help="Plain text.")
@project_options()
def up(
    chosen: Chosen,
    services: tuple[str, ...],
    detach: bool,
    wait: bool,
    wait_timeout: float | None,
    scales: tuple[str, ...],
    remove_orphans: bool,
    no_color: bool,
) -> None:
    """Start all services, or these and what they depend on, and show what they say.

    Ctrl-C stops them, those first that others don't depend on; a second one kills. When one fails as it starts, all are
    stopped, and the exit status is 1.

    If the project is up, what is missing starts, what has changed starts anew, and the rest stays as it is.
    """
    project = chosen.project(services, dict(map(_scale, scales)))
    home = Home(trap_socket(chosen.socket), project.name)
    supervisor = home.connect()
    if supervisor is not None:
        arguments: dict[str, object] = {
            "project": json.dumps(described(project)),
            "keep": list(project.defined) if remove_orphans else None,
            "ready": wait,
            "patience": wait_timeout,
        }
        with closing(supervisor):
            if detach or wait:
                _take_up(home, supervisor, project, arguments)
            else:
                _take_up_and_follow(home, supervisor, project, arguments, no_color)
        return
    if detach or wait:
        launch.run_in_background(project, home, wait, wait_timeout)
        for line in last_lines(home.log, NOTES):
            if line.note and not line.instance:
                tell(f"appswitch: {line.text}")
        tell(f"appswitch: project {project.name} is up; `appswitch compose down -p {project.name}` stops it")
        return
    names = [
        str(Instance(name, number)) for name, each in project.services.items() for number in range(1, each.scale + 1)
    ]
    os._exit(launch.run_here(project, home, Printer(names, no_color).show))


def _take_up(home: Home, supervisor: ControlClient, project: Project, arguments: dict[str, object]) -> None:
    """An `up` of a project that is up; says what has become of each program."""
    changes: dict[str, str] = supervisor.call("up", arguments)
    for name, change in changes.items():
        tell(f"appswitch: {name} {'is ' if change == Change.LEFT.value else ''}{change}")
    for orphan in sorted({str(row["service"]) for row in _ask(home)} - project.defined):
        tell(f"appswitch: {orphan} isn't in the file, and stays; `--remove-orphans` stops it")
    tell(f"appswitch: project {home.project} is up; `appswitch compose down -p {home.project}` stops it")


def _take_up_and_follow(
    home: Home, supervisor: ControlClient, project: Project, arguments: dict[str, object], no_color: bool
) -> None:
    """The same, and then what all say, until all has ended: by Ctrl-C, too, which stops all; a second one kills."""
    received: list[int] = []

    def stop_all(number: int, _frame: object) -> None:
        threading.Thread(target=_stop, args=[home, bool(received)], daemon=True).start()
        received.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop_all)
    with closing(_connect(home)) as reader:
        pieces = reader.stream("logs", {"services": [], "tail": 0, "follow": True})
        next(pieces)  # from now on we miss nothing
        try:
            _take_up(home, supervisor, project, arguments)
            printer = Printer([row["name"] for row in _ask(home)], no_color)
            for piece in pieces:
                if piece is None:
                    break
                printer.show([Line(**each) for each in piece])
        except AppSwitchError as error:
            if not received and not isinstance(error, HandlerGoneError):
                raise
    if received:
        home.wait_until_left()
        sys.exit(128 + received[0])


@compose.command()
@click.option("--kill", is_flag=True, help="Without waiting for programs to end by themselves.")
@project_options()
def down(chosen: Chosen, kill: bool) -> None:
    """Stop all services, those first that others don't depend on."""
    home = chosen.home()
    if not _stop(home, kill):
        home.tidy()
        tell(f"appswitch: project {home.project} isn't up")


def _stop(home: Home, kill: bool) -> bool:
    """Returns once all has ended; whether it was up."""
    supervisor = home.connect()
    if supervisor is None:
        return False
    with closing(supervisor), suppress(HandlerGoneError):  # that is its answer
        supervisor.call("down", {"kill": kill})
    home.wait_until_left()
    return True


@compose.command()
@formats
@project_options()
def ps(chosen: Chosen, output: str, no_headers: bool) -> None:
    """List the programs."""
    home = chosen.home()
    rows = _ask(home)
    for row in rows:
        if row["started"] is not None:
            row["started"] = datetime.fromtimestamp(row["started"]).astimezone().isoformat(timespec="seconds")
    show("compose ps", rows, output, no_headers)


@compose.command()
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
@click.option("-f", "--follow", "follow", metavar="[FILE]", is_flag=False, flag_value="", multiple=True,
              help="Go on with what they say, until Ctrl-C. Before a .yaml or .yml: as --file.")  # fmt: skip
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0), help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="With the time of each line.")
@click.option("--no-color", is_flag=True, help="Plain text.")
@project_options(("--file",))
def logs(
    chosen: Chosen,
    services: tuple[str, ...],
    follow: tuple[str, ...],
    tail: int | None,
    timestamps: bool,
    no_color: bool,
) -> None:
    """Show what services said."""
    for each in follow:  # `-f web` is `-f`, and a service; `-f compose.yaml` names the file, as everywhere
        if each.endswith(FILE_ENDS):
            chosen.files = (*chosen.files, each)
        elif each:
            services = (each, *services)
    follows = any(not each.endswith(FILE_ENDS) for each in follow)
    home = chosen.home()
    printer = Printer([row["name"] for row in _ask(home)], no_color, timestamps)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends `tail -f`: 130 to a shell
    with closing(_connect(home)) as supervisor, suppress(HandlerGoneError):
        for piece in supervisor.stream("logs", {"services": services, "tail": tail, "follow": follows}):
            if piece is None:
                break
            printer.show([Line(**each) for each in piece])


def _connect(home: Home) -> ControlClient:
    supervisor = home.connect()
    if supervisor is None:
        raise AppSwitchError("not-up", f"project {home.project} isn't up", "`appswitch compose up` starts it")
    return supervisor


def _ask(home: Home) -> list[dict[str, Any]]:
    with closing(_connect(home)) as supervisor:
        rows: list[dict[str, Any]] = supervisor.call("ps")
    return rows


@compose.command()
@click.option("--services", is_flag=True, help="The services' names only.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing, if the file is in order.")
@click.option("--json", "as_json", is_flag=True, help="JSON, not YAML.")
@project_options()
def config(chosen: Chosen, services: bool, quiet: bool, as_json: bool) -> None:
    """Show the file as it is understood: variables, defaults and files of variables put in."""
    project = chosen.project()
    if quiet:
        return
    if services:
        click.echo("".join(f"{name}\n" for name in project.services), nl=False)
    elif as_json:
        click.echo(json.dumps(described(project), indent=2))
    else:
        click.echo(document.written(described(project)), nl=False)


def _scale(text: str) -> tuple[str, int]:
    service, _, count = text.partition("=")
    if not service or not (count.isascii() and count.isdigit()):
        raise click.BadParameter(f"{text!r} is not SERVICE=N, for example web=3", param_hint="--scale")
    return service, int(count)


def _warn(text: str) -> None:
    tell(f"appswitch: warning: {text}")
