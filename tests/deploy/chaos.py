"""A TCP proxy that does to connections what networks and dying hosts do to them.

It runs in a thread of its own, on a free port of loopback, before one target. Each connection is a
Link with two Directions, `to_backend` and `to_client`, whose rules may change at any time. The
client is whoever connects here: Sluice, when this stands in the place of one of its backends.
Times are of time.monotonic(), which is the clock of deploy_client too.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time

CAPTURED = 4096  # bytes from the beginning of each direction that are kept
CHUNK = 65536
SECONDS_TO_END = 10
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


def close_with_reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.close()


class Direction:
    """One way of a link, its rules, and what became of the bytes."""

    def __init__(self):
        # Rules.
        self.delay = 0.0  # seconds that every chunk waits, at least
        self.dribble = False  # one byte to a write
        self.blackhole = False  # what comes is taken and never passed on
        self.cut_at = None  # the link is cut once so many bytes are through
        self.cut_with = "fin"  # or "rst"
        # Facts.
        self.forwarded = 0
        self.writes = 0
        self.captured = b""
        self.swallowed = 0
        self.first_swallowed_at = None


class Link:
    def __init__(self, client):
        self.to_backend, self.to_client = Direction(), Direction()
        self.opened_at = time.monotonic()
        self.cut_at = None  # when it was cut
        self.is_open = True
        self._client, self._backend = client, None
        self._pumps = []

    @property
    def identity(self):
        """(uid, n) of the upgrade that went through; None before there was one."""
        found = re.match(rb"GET \S*\?uid=(\d+)&n=(\d+)", self.to_backend.captured)
        return tuple(map(int, found.groups())) if found else None

    @property
    def head_size(self):
        """Bytes of the answer's head; what is behind them in `to_client` are frames."""
        end = self.to_client.captured.find(b"\r\n\r\n")
        return end + 4 if end >= 0 else None

    def cut(self, how):
        """Takes the backend away: its side ends at once, the client gets "fin" or "rst". Only on
        the thread of the proxy: see Chaos.call."""
        if self.cut_at is not None:
            return
        current = asyncio.current_task()
        for pump in self._pumps:
            if pump is not current:
                pump.cancel()
        self.cut_at = time.monotonic()
        if how == "rst":
            close_with_reset(self._client)
        else:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)
        if self._backend is not None:
            close_with_reset(self._backend)

    async def _run(self, target):
        loop = asyncio.get_running_loop()
        self._backend = socket.socket()
        self._backend.setblocking(False)
        self._backend.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.sock_connect(self._backend, target)
        except OSError:
            close_with_reset(self._client)
            return
        self._pumps = [
            loop.create_task(self._pump(self._client, self._backend, self.to_backend)),
            loop.create_task(self._pump(self._backend, self._client, self.to_client))]
        await asyncio.gather(*self._pumps, return_exceptions=True)
        if self.cut_at is not None and self._client.fileno() >= 0:
            # What the client still says has to be taken: closing on unread bytes sends RST.
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                async with asyncio.timeout(SECONDS_TO_END):
                    while await loop.sock_recv(self._client, CHUNK):
                        pass

    async def _pump(self, source, sink, way):
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(source, CHUNK):
                if way.delay:
                    await asyncio.sleep(way.delay)  # is what was asked for
                while data and self.cut_at is None:
                    data = await self._forward(sink, way, data)
            if not way.blackhole and self.cut_at is None:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            if self.cut_at is None and not way.blackhole:
                close_with_reset(sink)

    async def _forward(self, sink, way, data):
        """Passes some of it on; returns the rest."""
        if way.blackhole:
            if way.first_swallowed_at is None:
                way.first_swallowed_at = time.monotonic()
            way.swallowed += len(data)
            return b""
        room = len(data)
        if way.dribble:
            room = 1
        if way.cut_at is not None:
            room = min(room, max(way.cut_at - way.forwarded, 0))
        part, rest = data[:room], data[room:]
        if part:
            await asyncio.get_running_loop().sock_sendall(sink, part)
            way.writes += 1
            way.forwarded += len(part)
            way.captured = (way.captured + part)[:CAPTURED]
        if way.cut_at is not None and way.forwarded >= way.cut_at:
            self.cut(way.cut_with)
            return b""
        return rest

    def _close(self):
        self.is_open = False
        for connection in (self._client, self._backend):
            if connection is not None:
                connection.close()


class Chaos:
    """The proxy before `target`, (host, port). `on_link(link)` sets the rules of each new link."""

    def __init__(self, target, on_link=lambda link: None):
        self.target, self.on_link = target, on_link
        # "forward"; "refuse": RST at once; "blackhole": accepted, and nothing ever comes of it.
        self.mode = "forward"
        self.links = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def call(self, function):
        """function() on the thread of the proxy, between two of its steps; returns its result."""
        async def step():
            return function()
        return asyncio.run_coroutine_threadsafe(step(), self._loop).result(SECONDS_TO_END)

    def open_links(self):
        return self.call(lambda: [link for link in self.links if link.is_open])

    def cut_all(self, how):
        """Cuts every open link; returns them."""
        def cut():
            links = [link for link in self.links if link.is_open and link.cut_at is None]
            for link in links:
                link.cut(how)
            return links
        return self.call(cut)

    def close(self):
        async def stop():
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(SECONDS_TO_END)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS_TO_END)
        self._loop.close()
        self._listener.close()

    def _serve(self):
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._accept())
        self._loop.run_forever()

    async def _accept(self):
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.mode == "refuse":
                close_with_reset(client)
                continue
            link = Link(client)
            self.links.append(link)
            self.on_link(link)
            self._loop.create_task(self._keep(link, self.mode))

    async def _keep(self, link, mode):
        try:
            if mode == "blackhole":
                await asyncio.Event().wait()
            await link._run(self.target)
        finally:
            link._close()
