"""The socket of a supervisor: `ps`, `logs`, `down` and further `up`s come in here."""

from __future__ import annotations

import os
import socket
from contextlib import aclosing, suppress
from pathlib import Path

import trio

from appswitch.compose import load, requests
from appswitch.compose.supervisor import Supervisor
from appswitch.errors import AppSwitchError
from appswitch.host.paths import control_socket


async def serve(door: Path, supervisor: Supervisor) -> None:
    """Answers whoever comes, until it is cancelled."""
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        mask = os.umask(0o177)
        try:
            await listener.bind(str(control_socket(door)))
        finally:
            os.umask(mask)
        listener.listen(64)

        async def answer(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                await _answer(supervisor, stream)

        await trio.serve_listeners(answer, [trio.SocketListener(listener)])


async def _answer(supervisor: Supervisor, stream: trio.SocketStream) -> None:
    line = b""
    while not line.endswith(b"\n") and len(line) <= requests.MAX_LINE:
        data = await stream.receive_some(1 << 16)
        if not data:
            return
        line += data
    try:
        await _carry_out(supervisor, requests.decode(line), stream)
    except AppSwitchError as error:
        await stream.send_all(requests.encode_error(error))


async def _carry_out(supervisor: Supervisor, request: requests.Request, stream: trio.SocketStream) -> None:
    match request:
        case requests.Ps():
            await stream.send_all(requests.encode_ok(supervisor.rows()))
        case requests.Logs(services=services, tail=tail, follow=follow):
            for each in services:
                if each not in supervisor.services:
                    raise AppSwitchError("no-service", f"there is no service {each}", "`compose ps` lists them")
            async with aclosing(supervisor.logbook.read(services, tail, follow)) as pieces:
                async for lines in pieces:
                    await stream.send_all(requests.encode_ok(lines))
            await stream.send_all(requests.encode_ok(None))
        case requests.Up(project=text, keep=keep, ready=ready, patience=patience):
            changes = await supervisor.take_up(load.reread(text), keep, ready, patience)
            await stream.send_all(requests.encode_ok(changes))
        case requests.Down(kill=kill):
            supervisor.stop(kill)
            await trio.sleep_forever()  # the connection ends with us: then nothing is left
