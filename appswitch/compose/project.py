"""A project: services with all that is needed to run them, each value in its unit; and which of them are wanted."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Mapping
from pathlib import Path

from attrs import evolve, frozen

from appswitch.compose.file import Condition
from appswitch.errors import AppSwitchError

Endpoint = tuple[int, str]
"""(port, "tcp" or "udp")"""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@frozen
class Check:
    """A command that is run again and again. Times in seconds; retries: failures in a row that make it unhealthy."""

    command: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 1.0


@frozen
class Listens:
    """Healthy while all of these are served; none: while anything is."""

    endpoints: frozenset[Endpoint] = frozenset()


@frozen
class Restart:
    """When a program that has ended is started again. most: times; None: for ever."""

    after_success: bool = False
    after_failure: bool = False
    most: int | None = None


@frozen
class Dependency:
    """A service that has to be there first. required: else its failure is none of ours; restart: when
    it is started anew, so are we.
    """

    service: str
    condition: Condition = "service_started"
    required: bool = True
    restart: bool = False


@frozen
class Service:
    """environment: what is added to ours; health: None: nobody asks; grace: seconds between the signal to stop and the
    kill; published, bypasses: as `spawn --expose` and `--bypass` take them; node: None: whichever host we are on.
    """

    name: str
    command: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = {}
    user: str | None = None
    dependencies: tuple[Dependency, ...] = ()
    health: Check | Listens | None = Listens()
    restart: Restart = Restart()
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0
    scale: int = 1
    profiles: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    ip: str | None = None
    tags: tuple[str, ...] = ()
    node: str | None = None
    netns: bool = True
    tcp: bool = False
    exclusive: bool = False
    bypasses: tuple[str, ...] = ()


@frozen
class Project:
    """name: of the project; directory: of its file; defined: all services of that, be they wanted or not.

    Of the trap handler, if it is started for this: policy: a file; egress: whether programs may leave for the outside.
    """

    name: str
    directory: Path
    services: Mapping[str, Service]
    policy: Path | None = None
    egress: bool = False
    defined: frozenset[str] = frozenset()


def plain_name(text: str) -> str:
    """A project's name, of a directory's."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def check_name(name: str) -> str:
    """AppSwitchError `bad-compose`: it can't be a project's name."""
    if len(name) > 48 or not _NAME.fullmatch(name):
        hint = "use a-z, 0-9, - and _, 48 at most: `--project-name shop`"
        raise AppSwitchError("bad-compose", f"{name!r} can't be a project's name", hint)
    return name


def select(
    project: Project,
    names: Collection[str] = (),
    profiles: Collection[str] = (),
    scales: Mapping[str, int] | None = None,
) -> Project:
    """The services that are wanted: those named and what they depend on, else all that the profiles let in.

    A profile `*` lets all in. scales: service -> number of instances. AppSwitchError `bad-compose`.
    """
    scales = scales or {}
    for each in [*names, *scales]:
        if each not in project.services:
            hint = f"there are {', '.join(project.services)}" if project.services else ""
            raise AppSwitchError("bad-compose", f"there is no service {each}", hint)

    def enabled(service: Service) -> bool:
        return not service.profiles or "*" in profiles or bool(set(service.profiles) & set(profiles))

    wanted = list(names) or [name for name, each in project.services.items() if enabled(each)]
    chosen: dict[str, Service] = {}
    while wanted:
        service = project.services[wanted.pop()]
        if service.name in chosen:
            continue
        kept = []
        for dependency in service.dependencies:
            there = project.services.get(dependency.service)
            if there is not None and (enabled(there) or there.name in names):
                kept.append(dependency)
                wanted.append(there.name)
            elif there is not None and dependency.required:
                reason = f"{service.name} depends on {there.name}, which no active profile has"
                raise AppSwitchError("bad-compose", reason, f"--profile {there.profiles[0]}")
        scale = scales.get(service.name, service.scale)
        chosen[service.name] = evolve(service, dependencies=tuple(kept), scale=scale)
    return evolve(project, services={name: chosen[name] for name in project.services if name in chosen})
