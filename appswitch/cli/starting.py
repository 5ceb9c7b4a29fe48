"""`appswitch spawn` without click, which takes as long to import as all the rest: what is plainly right is read here.

The options are those that cli/spawn.py declares, which reads all else, help and mistakes. A test holds that the two
understand the same.
"""

from __future__ import annotations

import os
import signal

from appswitch import spawn
from appswitch.cli.failing import fail
from appswitch.errors import AppSwitchError
from appswitch.host.processes import FAILED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

FLAGS = {"--no-netns": ("netns", False), "--tcp": ("tcp", True), "--exclusive": ("exclusive", True)}
LISTS = {"--tag": "tags", "--expose": "exposes", "--bypass": "bypasses", "--wait-for": "wait_for"}
VALUES = {
    "--ip": ("ip", str),
    "--name": ("name", str),
    "--user": ("user", str),
    "--socket": ("socket", str),
    "--wait-timeout": ("wait_timeout", float),
    "--supervised": ("supervised", int),
    "--inside": ("inside", int),
}


def read(words: list[str]) -> spawn.Options | None:
    """What the words after `appswitch spawn` say; None: they aren't plain, or wrong."""
    said: dict[str, Any] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        option, equals, value = words[at].partition("=")
        at += 1
        if option == "--" and not equals:
            break
        if option in FLAGS and not equals:
            key, meaning = FLAGS[option]
            said[key] = meaning
            continue
        if not equals:
            if at == len(words):
                return None
            value = words[at]
            at += 1
        if option in LISTS:
            said.setdefault(LISTS[option], []).append(value)
        elif option in VALUES:
            key, kind = VALUES[option]
            try:
                said[key] = kind(value)
            except ValueError:
                return None
        else:
            return None
    if at == len(words) or not 0 <= said.get("wait_timeout", 0.0) < float("inf"):
        return None
    return spawn.Options(words[at:], **said)


def start(options: spawn.Options) -> NoReturn:
    """Runs the program and ends as it ends; an error is told."""
    try:
        os._exit(spawn.run(options))  # at once: tearing the interpreter down takes as long as starting it
    except AppSwitchError as error:
        fail(error, FAILED)
    except OSError as error:
        fail(AppSwitchError("system", str(error)), FAILED)
    except KeyboardInterrupt:  # before the program has started: while it waits for services, say
        os._exit(128 + signal.SIGINT)
