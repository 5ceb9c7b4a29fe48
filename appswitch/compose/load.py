"""Finds and reads what a project is made of: the compose file, `.env`, and files that services name."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from pathlib import Path

from appswitch.compose import dotenv, meaning
from appswitch.compose.document import Document
from appswitch.compose.merge import merged
from appswitch.compose.project import Project, check_name, plain_name, select
from appswitch.errors import AppSwitchError

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDES = ("compose.override.yaml", "compose.override.yml",
             "docker-compose.override.yaml", "docker-compose.override.yml")  # fmt: skip
MOST_BYTES = 1 << 20


def find_files(given: Sequence[str]) -> list[Path]:
    """The compose files: as given, else as COMPOSE_FILE says, else the one in the working directory or above it.

    Beside that, its override counts, too. AppSwitchError `no-file`.
    """
    separator = os.environ.get("COMPOSE_PATH_SEPARATOR", os.pathsep)
    named = given or [each for each in os.environ.get("COMPOSE_FILE", "").split(separator) if each]
    if named:
        return [Path(each).absolute() for each in named]
    here = Path.cwd()
    for directory in (here, *here.parents):
        found = _first_of(directory, FILES)
        if found is not None:
            override = _first_of(directory, OVERRIDES)
            return [found] if override is None else [found, override]
    raise AppSwitchError("no-file", f"there is no {FILES[0]} in {here}, nor above it", "name a file with -f")


def _first_of(directory: Path, names: Sequence[str]) -> Path | None:
    return next((directory / each for each in names if (directory / each).is_file()), None)


def load(
    paths: Sequence[Path],
    name: str | None,
    profiles: Collection[str],
    env_file: str | None,
    warn: Callable[[str], None],
    services: Collection[str] = (),
    scales: Mapping[str, int] | None = None,
) -> Project:
    """The project, as it is wanted, of its files: later ones upon earlier ones; the first one's directory counts.

    name: of the project, whatever else it may be called. AppSwitchError.
    """
    path = paths[0]
    variables = _variables(path, env_file)
    document = _document(paths, variables)
    project = meaning.understand(
        document, lambda written: _name(path, name, written, variables), path.parent, variables, _read
    )
    for each in document.warnings:
        warn(each)
    active = {*profiles, *filter(None, variables.get("COMPOSE_PROFILES", "").split(","))}
    return select(project, services, active, scales)


def reread(text: str) -> Project:
    """The project that `describe.described` has described, as JSON, which is YAML. AppSwitchError."""
    return meaning.understand(
        Document("the project", text, {}), lambda name: check_name(name or ""), Path("/"), {}, _read
    )


def project_name(paths: Sequence[Path], name: str | None, env_file: str | None) -> str:
    """The project's name alone, of files that may be wrong, or not be there any more. AppSwitchError."""
    variables = _variables(paths[0], env_file)
    written = None
    if name is None:
        data = _document(paths, variables).data
        written = data.get("name") if isinstance(data, dict) else None
    return _name(paths[0], name, written if isinstance(written, str) else None, variables)


def _document(paths: Sequence[Path], variables: Mapping[str, str]) -> Document:
    return reduce(merged, (Document(os.path.relpath(each), _text(each), variables) for each in paths))


def _name(path: Path, given: str | None, written: str | None, variables: Mapping[str, str]) -> str:
    """-p, then COMPOSE_PROJECT_NAME, then the file's own, then that of its directory."""
    return check_name(given or variables.get("COMPOSE_PROJECT_NAME") or written or plain_name(path.parent.name))


def _variables(path: Path, env_file: str | None) -> Mapping[str, str]:
    """The environment's; those of `.env` beside the file, or of another file, where the environment has none."""
    where = Path(env_file) if env_file is not None else path.parent / ".env"
    try:
        return {**dotenv.parse(_read(where), os.environ), **os.environ}
    except FileNotFoundError:
        if env_file is None:
            return os.environ
        raise AppSwitchError("no-file", f"there is no file {where}", "name another one with --env-file") from None
    except dotenv.DotenvError as error:
        raise AppSwitchError("bad-compose", f"{where}:{error.line}: {error}") from None
    except OSError as error:
        raise AppSwitchError("no-file", f"{where} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise AppSwitchError("bad-compose", f"{where} isn't UTF-8") from None


def _text(path: Path) -> str:
    try:
        return _read(path)
    except OSError as error:
        raise AppSwitchError("no-file", f"{path} can't be read: {error.strerror}", "name a file with -f") from None
    except UnicodeDecodeError:
        raise AppSwitchError("bad-compose", f"{path} isn't UTF-8") from None


def _read(path: Path) -> str:
    """UTF-8, of a size that a person writes."""
    with path.open("rb") as stream:
        content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise AppSwitchError("bad-compose", f"{path} is longer than {MOST_BYTES >> 20} MiB")
    return content.decode()
