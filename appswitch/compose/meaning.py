"""What a compose file means: what is written -> a project.

Pure: the environment comes in as a mapping, files of variables through a function that reads one.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from attrs import evolve

from appswitch.compose import dotenv, file
from appswitch.compose.document import Document
from appswitch.compose.document import Path as Keys
from appswitch.compose.project import Check, Dependency, Endpoint, Listens, Project, Restart, Service

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(us|ms|s|m|h)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PORT = re.compile(r"(?:(?P<published>[0-9-]+):)?(?P<target>[0-9-]+)(?:/(?P<protocol>tcp|udp))?")
_RESTART = re.compile(r"no|always|unless-stopped|on-failure(?::(?P<most>[1-9][0-9]*))?")
NOT_PASSED_ON = {"SIGCHLD", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGCONT", "SIGWINCH", "SIGURG", "SIGPIPE"}
"""Of the signals that could be told a program to stop by, those that `spawn` keeps to itself (host/processes.py)."""


def understand(
    document: Document,
    name: Callable[[str | None], str],
    directory: Path,
    environment: Mapping[str, str],
    read: Callable[[Path], str],
) -> Project:
    """The project of a file. AppSwitchError `bad-compose` with line and key.

    name: of the project, given the one in the file; environment: where a variable without a value has one; read: a
    file's text; OSError, UnicodeDecodeError.
    """
    written = file.read(document)
    reader = _Reader(document, directory, environment, read)
    services = {each: reader.service(each, written.services[each]) for each in written.services}
    _check_dependencies(document, services)
    policy = written.x_appswitch.policy
    return Project(
        name=name(written.name),
        directory=directory,
        services=services,
        policy=directory / policy if policy else None,
        egress=written.x_appswitch.egress,
        defined=frozenset(services),
    )


class _Reader:
    """Makes services of what is written. A method's `path` is where its value is."""

    def __init__(
        self, document: Document, directory: Path, environment: Mapping[str, str], read: Callable[[Path], str]
    ) -> None:
        self._document = document
        self._directory = directory
        self._environment = environment
        self._read = read

    def service(self, name: str, written: file.Service) -> Service:
        path: Keys = ("services", name)
        ours = written.x_appswitch
        variables = {
            **self._env_files(written.env_file, (*path, "env_file")),
            **self._texts(written.environment, (*path, "environment")),
        }
        exposed = [self._port(each, (*path, "expose", i))[1] for i, each in enumerate(written.expose)]
        published = [self._port(each, (*path, "ports", i)) for i, each in enumerate(written.ports)]
        return Service(
            name=name,
            command=self._command(written.command, (*path, "command")),
            directory=self._directory / Path(written.working_dir or ".").expanduser(),
            environment=variables,
            user=self._user(written.user, (*path, "user")),
            dependencies=_dependencies(written.depends_on),
            health=self._health(written.healthcheck, [*exposed, *(each for _, each in published)], path),
            restart=self._restart(written.restart, (*path, "restart")),
            stop_signal=self._signal(written.stop_signal, (*path, "stop_signal")),
            grace=self._seconds(written.stop_grace_period, (*path, "stop_grace_period")),
            scale=self._scale(written, path),
            profiles=tuple(written.profiles),
            published=tuple(each for each, _ in published),
            labels=self._texts(written.labels, (*path, "labels")),
            ip=ours.ip,
            tags=self._tags(ours.tags),
            node=ours.node,
            netns=ours.netns,
            tcp=ours.tcp,
            exclusive=ours.exclusive,
            bypasses=tuple(ours.bypass),
        )

    def _command(self, written: str | Sequence[str], path: Keys) -> tuple[str, ...]:
        """A text is split as a shell would, and given to none."""
        try:
            words = tuple(shlex.split(written) if isinstance(written, str) else written)
        except ValueError as error:
            raise self._document.error(path, str(error).lower()) from None
        if not words or not words[0]:
            raise self._document.error(path, "it is empty")
        if any("\0" in word for word in words):
            raise self._document.error(path, "a NUL can't be passed to a program")
        return words

    def _texts(self, written: Sequence[str] | Mapping[str, file.Text], path: Keys) -> dict[str, str]:
        """Variables, or labels. Without a value: the environment's, or left out."""
        pairs: Iterable[tuple[str, file.Text]]
        if isinstance(written, Mapping):
            pairs = written.items()
        else:
            pairs = (
                (name, value if equals else None) for name, equals, value in (each.partition("=") for each in written)
            )
        made = {}
        for name, value in pairs:
            if not name or "=" in name or "\0" in name or "\0" in str(value):
                raise self._document.error(path, f"not a variable: {name!r}", "write NAME=VALUE, or NAME: VALUE")
            found = self._environment.get(name) if value is None else str(value)
            if found is not None:
                made[name] = found
        return made

    def _env_files(self, written: str | Sequence[str | file.EnvFile], path: Keys) -> dict[str, str]:
        """Later ones win."""
        made: dict[str, str] = {}
        for each in [written] if isinstance(written, str) else written:
            entry = file.EnvFile(each) if isinstance(each, str) else each
            where = self._directory / Path(entry.path).expanduser()
            try:
                made |= dotenv.parse(self._read(where), self._environment, raw=entry.format == "raw")
            except FileNotFoundError:
                if entry.required:
                    raise self._document.error(path, f"there is no file {where}") from None
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
                raise self._document.error(path, f"{where} can't be read: {reason}") from None
            except dotenv.DotenvError as error:
                raise self._document.error(path, f"{where}:{error.line}: {error}") from None
        return made

    def _user(self, written: str | int | None, path: Keys) -> str | None:
        if isinstance(written, str) and ":" in written:
            raise self._document.error(path, "a group can't be named", "the user's groups are those of the host")
        return None if written is None else str(written)

    def _health(
        self, written: file.Healthcheck | None, endpoints: Sequence[Endpoint], path: Keys
    ) -> Check | Listens | None:
        listens = Listens(frozenset(endpoints))
        if written is None or written.disable:
            return None if written is not None else listens
        where = (*path, "healthcheck")
        test = written.test
        match [test] if isinstance(test, str) else test:
            case None:
                return listens
            case ["NONE"]:
                return None
            case ["CMD", *words] if words:
                command = tuple(words)
            case ["CMD-SHELL", script]:
                command = ("/bin/sh", "-c", script)
            case [script] if isinstance(test, str):
                command = ("/bin/sh", "-c", script)
            case _:
                hint = "write a command line as text, or [CMD, word, ...], [CMD-SHELL, line], [NONE]"
                raise self._document.error((*where, "test"), "it can't be read", hint)
        times = {
            each: self._seconds(value, (*where, each))
            for each in ("interval", "timeout", "start_period", "start_interval")
            if (value := getattr(written, each)) is not None
        }
        for each in ("interval", "timeout", "start_interval"):
            if times.get(each) == 0:
                raise self._document.error((*where, each), "it has to be longer than nothing")
        check = Check(command, retries=written.retries or Check(()).retries, **times)
        return evolve(check, start_interval=min(check.start_interval, check.interval))

    def _restart(self, written: str, path: Keys) -> Restart:
        match = _RESTART.fullmatch(written)
        if match is None:
            hint = 'write "no", always, unless-stopped, on-failure or on-failure:3'
            raise self._document.error(path, f"{written!r} is no way to restart", hint)
        if written == "no":
            return Restart()
        on_failure = written.startswith("on-failure")
        return Restart(not on_failure, True, int(match["most"]) if match["most"] else None)

    def _signal(self, written: str | int, path: Keys) -> int:
        text = str(written).upper()
        try:
            number = signal.Signals(int(text)) if text.isdigit() else signal.Signals["SIG" + text.removeprefix("SIG")]
        except (KeyError, ValueError):
            raise self._document.error(
                path, f"{str(written)!r} is no signal", "for example SIGTERM or SIGQUIT"
            ) from None
        if number.name in NOT_PASSED_ON:
            raise self._document.error(
                path, f"{number.name} isn't passed on to programs", "for example SIGTERM or SIGQUIT"
            )
        return number

    def _seconds(self, written: str, path: Keys) -> float:
        parts = _DURATION.findall(written)
        if not parts or "".join(number + unit for number, unit in parts) != written:
            raise self._document.error(path, f"{written!r} is no time", "with its unit: 500ms, 10s, 1m30s, 2h")
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)

    def _scale(self, written: file.Service, path: Keys) -> int:
        replicas = written.deploy.replicas if written.deploy else None
        if written.scale is not None and replicas not in (None, written.scale):
            raise self._document.error((*path, "scale"), f"deploy.replicas says {replicas}", "leave one of them out")
        return next((each for each in (written.scale, replicas) if each is not None), 1)

    def _tags(self, written: Sequence[str] | Mapping[str, file.Text]) -> tuple[str, ...]:
        if isinstance(written, Mapping):
            return tuple(f"{key}={'' if value is None else value}" for key, value in written.items())
        return tuple(written)

    def _port(self, written: int | str | file.Port, path: Keys) -> tuple[str, Endpoint]:
        """As `spawn --expose` takes it, and what the program is to serve."""
        if isinstance(written, file.Port):
            published = "" if written.published is None else f"{written.published}:"
            return self._port(f"{published}{written.target}/{written.protocol}", path)
        match = _PORT.fullmatch(str(written))
        if match is None:
            hint = "write PORT or GATEWAY_PORT:PORT; the address is that of `serve --gateway-bind`"
            raise self._document.error(path, f"{written!r} is no port", hint)
        numbers = {}
        for each in ("target", "published"):
            if match[each] is not None:
                if not match[each].isdigit() or not 0 < int(match[each]) < 65536:
                    raise self._document.error(
                        path, f"{match[each]!r} is no port", "a number from 1 to 65535; no ranges"
                    )
                numbers[each] = int(match[each])
        protocol = match["protocol"] or "tcp"
        if path[2] == "ports" and protocol == "udp":
            raise self._document.error(
                path, "gateways let in TCP only", "`expose` for what apps reach among themselves"
            )
        return ":".join(str(numbers[each]) for each in numbers), (numbers["target"], protocol)


def _dependencies(written: Sequence[str] | Mapping[str, file.Dependency]) -> tuple[Dependency, ...]:
    if isinstance(written, Mapping):
        return tuple(Dependency(name, each.condition, each.required, each.restart) for name, each in written.items())
    return tuple(Dependency(name) for name in dict.fromkeys(written))


def _check_dependencies(document: Document, services: Mapping[str, Service]) -> None:
    """Each must be there, be able to fulfil the condition, and not wait for who waits for it."""
    for service in services.values():
        path = ("services", service.name, "depends_on")
        for each in service.dependencies:
            there = services.get(each.service)
            if there is None:
                if each.required:
                    raise document.error((*path, each.service), f"there is no service {each.service}")
            elif each.condition == "service_healthy" and there.health is None:
                reason = f"the health check of {each.service} is disabled: it never becomes healthy"
                raise document.error((*path, each.service), reason, "use service_started")
            elif each.condition == "service_completed_successfully" and there.node is not None:
                reason = f"{each.service} is run on node {there.node}: whether it has ended isn't known elsewhere"
                raise document.error((*path, each.service), reason, "use service_healthy")
        circle = _circle(services, service.name)
        if circle:
            raise document.error(path, f"it waits for itself: {' -> '.join(circle)}")


def _circle(services: Mapping[str, Service], start: str) -> list[str]:
    """A way along dependencies from a service to itself; none: empty."""
    ways, seen = [[start]], set[str]()
    while ways:
        way = ways.pop()
        for each in services[way[-1]].dependencies:
            if each.service == start:
                return [*way, start]
            if each.service in services and each.service not in seen:
                seen.add(each.service)
                ways.append([*way, each.service])
    return []
