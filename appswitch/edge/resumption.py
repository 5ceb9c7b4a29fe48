"""Taking back what our predecessor had, before we serve anyone.

Who the apps are, the journal tells; each shows by itself that it still is (edge/apps.py). Their listeners are Unix
sockets that nobody has closed: their files are where we make ours, and the kernel says which of them live, and listen.
A file counts when a socket of our network namespace is bound to it, under its own name: an app that has put a socket of
its own in its place can't make one there.
"""

from __future__ import annotations

import os

import structlog

from appswitch.edge.apps import Apps
from appswitch.edge.diag import Diag
from appswitch.edge.listeners import ListenerSockets
from appswitch.wire import socknames, unix_diag

INODE = 0xFFFFFFFF  # sock_diag tells 32 bits of it

log = structlog.get_logger()


async def take_back(apps: Apps, sockets: ListenerSockets, host: Diag) -> None:
    """host: for our own network namespace."""
    past = apps.journal.past
    for known in past.apps.values():
        apps.take_back(known, [each for each in past.receivers.values() if each.app.id == known.app.id])
    files = sockets.files()
    if files:
        await _take_back_listeners(apps, sockets, host, files)
    if past.apps:
        log.info("took back", apps=len(past.apps), listeners=len(apps.table.listeners))


async def _take_back_listeners(apps: Apps, sockets: ListenerSockets, host: Diag, files: dict[str, int]) -> None:
    try:
        found = await host.dump(unix_diag.bound_sockets, unix_diag.decode)
    except OSError as error:
        log.warning("the listeners of our predecessor aren't found", reason=error.strerror)
        return
    for each in found:
        file = os.fsdecode(each.name.rstrip(b"\0").rpartition(b"/")[2])
        name = socknames.read_listener_path(each.name)
        if name is None or each.file is None or each.uid != os.geteuid() or name.salt != sockets.salt:
            continue
        app = apps.table.apps.get(name.app_id)
        if app is not None and file in files and files[file] & INODE == each.file[1] & INODE:
            del files[file]
            sockets.adopt(name.listener_id, file)
            apps.table.add_listener(name.of(app, each.listens))
    for file in files:  # closed meanwhile
        sockets.discard(file)
