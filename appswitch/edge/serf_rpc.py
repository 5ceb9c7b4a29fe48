"""One connection to a Serf agent's RPC: a question, its answer, one at a time (the agent does the same).

A question that takes long (`join`) holds up those behind it, so it has a connection of its own; so has a stream.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import trio

from appswitch.wire import serf as wire

CHUNK = 1 << 16


class RpcError(Exception):
    """The agent answered with an error."""


class Rpc:
    """OSError or ValueError from any call: the connection is of no use any more."""

    @classmethod
    async def open(cls, port: int, auth_key: str) -> Rpc:
        """A connection to the agent on this loopback port."""
        rpc = cls(await trio.open_tcp_stream("127.0.0.1", port))
        try:
            await rpc.ask("handshake", {"Version": wire.VERSION})
            await rpc.ask("auth", {"AuthKey": auth_key})
        except BaseException:
            await rpc.aclose()
            raise
        return rpc

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._objects = wire.Objects()
        self._ready: deque[bytes] = deque()
        self._seq = 0
        self._turn = trio.Lock()

    async def ask(self, command: str, body: dict[str, object] | None = None, patience: float = 5.0) -> Any:
        """The answer's body (wire.BODIES), else None. RpcError; OSError, too, when none comes within `patience` s."""
        async with self._turn:
            self._seq += 1
            try:
                with trio.fail_after(patience):
                    await self._stream.send_all(wire.request(command, self._seq, body))
                    header = await self._header()
                    kind = wire.BODIES.get(command)
                    answer = wire.decode(await self._object(), kind) if kind else None
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                await self.aclose()
                raise OSError(f"the Serf agent didn't answer to {command!r}") from error
            except BaseException:  # cancelled in the middle: the next one would get this answer
                await self.aclose()
                raise
        if header.error:
            raise RpcError(header.error)
        return answer

    async def event(self) -> wire.StreamRecord:
        """What happens next in the cluster, after `stream` has been asked for. Serf drops what isn't read in time."""
        await self._header()
        return wire.decode(await self._object(), wire.StreamRecord)

    async def aclose(self) -> None:
        """Without waiting for anything."""
        await trio.aclose_forcefully(self._stream)

    async def _header(self) -> wire.Header:
        header = wire.decode(await self._object(), wire.Header)
        if header.seq != self._seq:
            raise ValueError(f"the Serf agent answered to question {header.seq} instead of {self._seq}")
        return header

    async def _object(self) -> bytes:
        while not self._ready:
            data = await self._stream.receive_some(CHUNK)
            if not data:
                raise OSError("the Serf agent has closed the connection")
            self._ready.extend(self._objects.feed(data))
        return self._ready.popleft()
