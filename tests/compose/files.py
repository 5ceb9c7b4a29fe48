"""Compose files for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from appswitch.compose import meaning
from appswitch.compose.document import Document
from appswitch.compose.project import Project
from appswitch.errors import AppSwitchError

DIRECTORY = Path("/srv/shop")


def understood(
    text: str, environment: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> Project:
    """The project of a file. files: what else there is, by path."""
    return meant(Document("c.yaml", text, environment or {}), environment, files)


def meant(
    document: Document, environment: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None
) -> Project:
    """The same, of a file that has been read."""

    def read(path: Path) -> str:
        try:
            return (files or {})[str(path)]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory", str(path)) from None

    return meaning.understand(document, lambda name: name or "shop", DIRECTORY, environment or {}, read)


def refused(text: str, environment: Mapping[str, str] | None = None) -> str:
    """What is wrong with it, with the hint."""
    with pytest.raises(AppSwitchError) as caught:
        understood(text, environment)
    assert caught.value.reason == "bad-compose"
    return str(caught.value)
