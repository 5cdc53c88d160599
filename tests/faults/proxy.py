"""A network that misbehaves on request: a TCP proxy on loopback, in a thread of its own.

    with Proxy(master_port) as proxy:
        worker joins proxy.url
        proxy.swallow()              # a black hole: nothing arrives, nobody is told
        proxy.swallow(up=False)      # one way only: what the target says is lost, what the client says arrives
        proxy.limit(10_000)          # bytes a second, each way
        proxy.cut()                  # reset every connection, now; new ones are taken
        proxy.refuse()               # the same, and nobody listens any more
        proxy.pass_on()              # all is well again

`up` is from who connects towards the target, `down` the way back. A call returns when it holds. What is
swallowed is what a dropped route does to TCP: the sender's bytes are kept back, its buffers fill, ends and
resets are not passed on either; `pass_on` delivers what is late, as retransmission would, to those who are
still there. `target_port` may be changed at any time, for connections made from then on.

`opened`, `alive`, `bytes_up` and `bytes_down` are facts; `wait` returns when one is true. `name` is only
for messages. Nothing here sleeps but a limited link.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 30.0
CHUNK_BYTES = 64 * 1024
# A slow link with deep buffers would take in one gulp what it then delivers for minutes.
SLOW_BUFFER_BYTES = 16 * 1024
PIECES_A_SECOND = 20
UP, DOWN = "up", "down"


class Proxy:
    """One listening port of ours in front of `target_port` of this machine."""

    def __init__(self, target_port: int, *, name: str = "proxy", slow: bool = False) -> None:
        self.target_port = target_port
        self.name = name
        self.port = 0
        self.opened = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._slow = slow
        self._rate: dict[str, int | None] = {UP: None, DOWN: None}
        self._free_at = {UP: 0.0, DOWN: 0.0}
        self._pairs: dict[asyncio.Task[None], tuple[socket.socket, ...]] = {}
        self._listener: socket.socket | None = None
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._gates = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self.pass_on()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> int:
        """How many connections are open on our side of them."""
        return len(self._pairs)

    def wait(self, what: Callable[[], bool], name: str) -> None:
        """Return when `what()` is true, asked again whenever a connection or bytes came or went."""
        with self._changed:
            if not self._changed.wait_for(what, PATIENCE_S):
                raise AssertionError(f"{self.name}: waited {PATIENCE_S} s for {name}")

    def pass_on(self) -> None:
        """Be an ordinary network, from here on and for what was kept back."""
        self._run(self._set(up=True, down=True, listen=True))

    def swallow(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing through in these directions, and tell nobody; the others pass."""
        self._run(self._set(up=not up, down=not down, listen=True))

    def refuse(self) -> None:
        """Reset every connection and refuse new ones."""
        self._run(self._set(up=True, down=True, listen=False))
        self.cut()

    def cut(self) -> None:
        """Reset every connection; new ones are as the mode says."""
        self._run(self._cut())

    def limit(self, bytes_per_s: int | None, *, up: bool = True, down: bool = True) -> None:
        """Pass no more than this in these directions, over all connections; None: as much as there is."""
        self._run(self._limit({way: bytes_per_s for way, chosen in ((UP, up), (DOWN, down)) if chosen}))

    def close(self) -> None:
        """Reset everything and be gone."""
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # In the thread

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _set(self, *, up: bool, down: bool, listen: bool) -> None:
        for way, is_open in ((UP, up), (DOWN, down)):
            (self._gates[way].set if is_open else self._gates[way].clear)()
        if listen and self._listener is None:
            self._listen()
        if not listen and self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _limit(self, rates: dict[str, int | None]) -> None:
        self._rate |= rates

    async def _cut(self) -> None:
        pairs = list(self._pairs)
        for task in pairs:
            task.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._slow:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        listener.setblocking(False)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # who knocked has left again
        target = socket.socket()
        for end in (client, target):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._slow:
            target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER_BYTES)
        task = self._loop.create_task(self._serve(client, target))
        self._pairs[task] = (client, target)
        task.add_done_callback(self._over)
        with self._changed:
            self.opened += 1
            self._changed.notify_all()

    def _over(self, task: "asyncio.Task[None]") -> None:
        orderly = not task.cancelled() and task.exception() is None
        for end in self._pairs.pop(task):
            if not orderly:
                # Without a goodbye: a reset.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        with self._changed:
            self._changed.notify_all()

    async def _serve(self, client: socket.socket, target: socket.socket) -> None:
        await self._gates[UP].wait()
        await self._loop.sock_connect(target, ("127.0.0.1", self.target_port))
        pumps = [
            self._loop.create_task(self._pump(source, sink, way))
            for source, sink, way in ((client, target, UP), (target, client, DOWN))
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        while True:
            rate = self._rate[way]
            size = CHUNK_BYTES if rate is None else max(1, rate // PIECES_A_SECOND)
            try:
                data = await self._loop.sock_recv(source, size)
            except OSError:
                # That the other end is gone is kept back, too.
                await self._gates[way].wait()
                raise
            rate = self._rate[way]
            if rate is not None:
                await self._wait_turn(way, len(data) / rate)
            await self._gates[way].wait()
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(sink, data)
            with self._changed:
                if way == UP:
                    self.bytes_up += len(data)
                else:
                    self.bytes_down += len(data)
                self._changed.notify_all()

    async def _wait_turn(self, way: str, takes_s: float) -> None:
        now = self._loop.time()
        self._free_at[way] = max(now, self._free_at[way]) + takes_s
        turn = asyncio.Event()
        self._loop.call_at(self._free_at[way], turn.set)
        await turn.wait()
