"""What may be written in a compose file: the Compose specification's words for programs that run on this host.

The types are read twice: by msgspec, to check a file, and by schema.py, which makes a JSON schema for editors of them.
msgspec says what is wrong and where, but for the keys of a mapping (`$.services[...]`): those are found by leaving all
others out.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from appswitch.compose.document import Document, Path

Text = str | int | float | bool | None
"""A text that needs no quotes; nothing: see the key."""
Duration = Annotated[str, Meta(extra_json_schema={"pattern": r"^([0-9.]+(us|ms|s|m|h))+$", "examples": ["1m30s"]})]
Count = Annotated[int, Meta(ge=0)]
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A mapping of the file."""


class Dependency(Part, frozen=True):
    """A service that has to be there first. restart: when `up` starts it anew, this one, too."""

    condition: Condition = "service_started"
    required: bool = True
    restart: bool = False


class Healthcheck(Part, frozen=True):
    """A command that tells whether the service is healthy. Without one: it is once it listens."""

    test: str | list[str] | None = None
    interval: Duration | None = None
    timeout: Duration | None = None
    retries: Annotated[int, Meta(ge=1)] | None = None
    start_period: Duration | None = None
    start_interval: Duration | None = None
    disable: bool = False


class EnvFile(Part, frozen=True):
    """A file of variables."""

    path: str
    required: bool = True
    format: Literal["raw"] | None = None


class Deploy(Part, frozen=True):
    """How it is run."""

    replicas: Count | None = None


class Port(Part, frozen=True):
    """A port that is reached from outside, at `published` of the gateways."""

    target: int | str
    published: int | str | None = None
    protocol: Literal["tcp", "udp"] = "tcp"


class ServiceExtension(Part, frozen=True):
    """AppSwitch's own of a service: what `spawn` is told. node: the host that it runs on."""

    ip: str | None = None
    tags: list[str] | dict[str, Text] = []
    node: str | None = None
    netns: bool = True
    tcp: bool = False
    exclusive: bool = False
    bypass: list[str] = []


class FileExtension(Part, frozen=True):
    """AppSwitch's own of a file: of the trap handler that `up` starts. egress: programs may leave for the outside."""

    policy: str | None = None
    egress: bool = False


class Service(Part, frozen=True, rename={"x_appswitch": "x-appswitch"}):
    """A program, and how it is run."""

    command: str | list[str]
    environment: list[str] | dict[str, Text] = []
    env_file: str | list[str | EnvFile] = []
    working_dir: str | None = None
    user: str | int | None = None
    depends_on: list[str] | dict[str, Dependency] = []
    healthcheck: Healthcheck | None = None
    restart: Annotated[
        str, Meta(extra_json_schema={"pattern": "^(no|always|unless-stopped|on-failure(:[0-9]+)?)$"})
    ] = "no"
    stop_signal: str | int = "SIGTERM"
    stop_grace_period: Duration = "10s"
    scale: Count | None = None
    deploy: Deploy | None = None
    profiles: list[str] = []
    expose: list[int | str] = []
    ports: list[int | str | Port] = []
    labels: list[str] | dict[str, Text] = []
    x_appswitch: ServiceExtension = field(default=ServiceExtension())


class File(Part, frozen=True, rename={"x_appswitch": "x-appswitch"}):
    """The whole of it. version: of no meaning any more."""

    services: dict[str, Service]
    name: str | None = None
    version: Text = None
    x_appswitch: FileExtension = field(default=FileExtension())


_NO_IMAGE = "programs are run as they are on this host: say which one in `command`"
_NO_NETWORK = "apps reach each other by name; the tag grp says who reaches whom: `x-appswitch: {tags: [grp=back]}`"
INSTEAD = {
    "image": _NO_IMAGE,
    "build": _NO_IMAGE,
    "entrypoint": "write the whole command line in `command`",
    "volumes": "programs see this host's files: name their directory in `working_dir`, `command` or `environment`",
    "networks": _NO_NETWORK,
    "network_mode": "`x-appswitch: {netns: false}` leaves a program in the host's network",
    "links": _NO_NETWORK,
    "container_name": "the service's own key is its name",
    "hostname": "the service's own key is its name",
    "extra_hosts": "a service with that name is found by it; other names are asked of the host's name servers",
    "dns": "`appswitch serve --dns-upstream` says who is asked",
    "secrets": "name a file in `environment`, or in `env_file`",
    "configs": "programs see this host's files: name them in `command` or `environment`",
    "logging": "`appswitch compose logs` shows what programs say",
    "extends": "use a YAML anchor: `<<: *common`",
    "include": "write all services into one file",
    "resources": "limit the program by the command that starts it: systemd-run, prlimit, nice",
    "restart_policy": "use `restart`",
}
"""A key of the Compose specification that isn't there -> what to do."""

_FIELDS = [
    name
    for part in (File, Service, ServiceExtension, Healthcheck, Dependency, Deploy, EnvFile, Port)
    for name in part.__struct_encode_fields__
]
_ERROR = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key in )?\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_WORDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "nothing",
          "array": "a list", "object": "a mapping"}  # fmt: skip


def read(document: Document) -> File:
    """The file's values in their types. AppSwitchError `bad-compose` with line and key."""
    try:
        return msgspec.convert(document.data, File, strict=False)
    except msgspec.ValidationError as error:
        what, steps = _parse(str(error))
        path = _find(document.data, str(error), steps)
        unknown = re.fullmatch("Object contains unknown field `(.*)`", what, re.DOTALL)
        if unknown:
            key = unknown[1]
            raise document.error((*path, key), f"the key {key} isn't known here", _hint(key)) from None
        missing = re.fullmatch("Object missing required field `(.*)`", what)
        if missing:
            hint = _NO_IMAGE if missing[1] == "command" else ""
            raise document.error(path, f"the key {missing[1]} is missing", hint) from None
        raise document.error(path, _plain(what)) from None


def _hint(key: str) -> str:
    close = difflib.get_close_matches(key, _FIELDS, 1)
    return INSTEAD.get(key) or (f"is {close[0]} meant?" if close else "extensions begin with x-")


def _parse(error: str) -> tuple[str, list[str]]:
    """What is wrong, and the steps that lead there."""
    match = _ERROR.fullmatch(error)
    assert match is not None  # it fits everything
    return match["what"], [name or index for name, index in _STEP.findall(match["path"] or "")]


def _find(data: Any, error: str, steps: list[str]) -> Path:
    """The path, with the keys that msgspec leaves out: each is the one that alone makes the same error."""
    path: list[str | int] = []
    value = data
    for step in steps:
        if step == "...":
            for key in value:
                alone = _with(data, path, {key: value[key]})
                if _error(alone) == error:
                    data, value = alone, value[key]
                    path.append(key)
                    break
        elif isinstance(value, list):
            path.append(int(step))
            value = value[int(step)]
        else:
            path.append(step)
            value = value.get(step) if isinstance(value, dict) else None
    return tuple(path)


def _with(data: Any, path: list[str | int], value: Any) -> Any:
    """A copy in which `value` stands at `path`."""
    if not path:
        return value
    first, *rest = path
    inner = _with(data[first], rest, value)
    if isinstance(data, list):
        return [inner if i == first else each for i, each in enumerate(data)]
    return {**data, first: inner}


def _error(data: Any) -> str:
    try:
        msgspec.convert(data, File, strict=False)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _plain(what: str) -> str:
    """In words: "Expected `str | null`, got `int`"."""

    def words(match: re.Match[str]) -> str:
        names = [_WORDS.get(name, name) for name in match[1].split(" | ") if name != "null" or match[1] == "null"]
        return " or ".join(names)

    return re.sub("`([a-z |]*)`", words, what[:1].lower() + what[1:])
