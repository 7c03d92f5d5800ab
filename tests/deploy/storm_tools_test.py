#!/usr/bin/python3
"""close_storm against a stand-in for Sluice that closes sessions well, or commits one fault: each is
found and named. A detector that has never detected proves nothing.
"""

import asyncio
import json
import socket
import struct
import sys
import threading
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from chaos import RESET  # noqa: E402
from close_storm_test import StormCase  # noqa: E402

SESSIONS = 12
REASON = b"storm drain"
CLOSE, PING = 0x88, 0x89


def close_frame(code, reason=b"", masked=False, first=CLOSE):
    payload = struct.pack(">H", code) + reason
    if not masked:
        return bytes([first, len(payload)]) + payload
    key = b"\x12\x34\x56\x78"
    return (bytes([first, 0x80 | len(payload)]) + key
            + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)))


async def read_frame(reader):
    """(header, payload) of one frame as it comes."""
    header = await reader.readexactly(2)
    length = header[1] & 0x7F
    if length >= 126:
        more = await reader.readexactly(2 if length == 126 else 8)
        header += more
        length = int.from_bytes(more, "big")
    if header[1] & 0x80:
        header += await reader.readexactly(4)
    return header, await reader.readexactly(length)


class StandIn:
    """A proxy that closes each session in order after some frames of the backend, as one that has
    reached its age. `fault` names what it does wrong."""

    def __init__(self, backend_port, fault):
        self.backend_port, self.fault = backend_port, fault
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self.serve, args=(started,), daemon=True)
        self.thread.start()
        started.wait(10)

    def serve(self, started):
        asyncio.set_event_loop(self.loop)

        async def listen():
            self.server = await asyncio.start_server(self.take, "127.0.0.1", 0)
            self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
            started.set()
        self.loop.create_task(listen())
        self.loop.run_forever()

    def close(self):
        async def stop():
            self.server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()

    async def take(self, client_reader, client):
        backend_reader, backend = await asyncio.open_connection("127.0.0.1", self.backend_port)
        tasks = []
        try:
            backend.write(await client_reader.readuntil(b"\r\n\r\n"))
            client.write(await backend_reader.readuntil(b"\r\n\r\n"))
            # Both sides first say enough: the age that closes them is nine tenths of a second.
            ends = asyncio.get_running_loop().time() + 1.0
            tasks = [asyncio.create_task(way) for way in (
                self.forward_client(client_reader, backend, ends),
                self.forward_backend(backend_reader, client, ends))]
            await asyncio.gather(*tasks)
            await self.close_both(client_reader, client, backend_reader, backend)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the other side has seen enough
        finally:
            for task in tasks:
                task.cancel()
            client.close()
            backend.close()

    async def forward_client(self, reader, writer, ends):
        """To the end of a message; then the CLOSE."""
        in_message = False
        while in_message or asyncio.get_running_loop().time() < ends:
            header, payload = await read_frame(reader)
            writer.write(header + payload)
            if not header[0] & 0x08:
                in_message = not header[0] & 0x80
            if self.fault == "cut message" and in_message:
                if asyncio.get_running_loop().time() > ends:
                    break
        fault = self.fault
        if fault == "close inside frame of client":
            header, payload = await self.large(reader, writer)
            writer.write(header + payload[:-1])
        masked = fault != "unmasked"
        code = 1002 if fault == "backend code" else 1001
        if fault != "no close to backend":
            writer.write(close_frame(code, REASON, masked=masked))
        if fault == "byte behind close to backend":
            writer.write(b"\x89")
        if fault == "no close to backend":
            writer.write_eof()

    async def large(self, reader, writer):
        """The next frame with a payload; those before it are forwarded."""
        while True:
            header, payload = await read_frame(reader)
            if len(payload) > 3:
                return header, payload
            writer.write(header + payload)

    async def forward_backend(self, reader, client, ends):
        done = False  # the fault
        kept = b""
        while True:
            header, payload = await read_frame(reader)
            if self.fault in ("last frame", "torn"):
                if header[0] == CLOSE:
                    client.write(kept[:-1] if self.fault == "torn" else b"")
                    return
                client.write(kept)
                kept = header + payload
                continue
            if header[0] == CLOSE:
                return
            late = not done and len(payload) > 3 and asyncio.get_running_loop().time() > ends - 0.5
            done = done or late
            if late and self.fault == "close inside frame":
                client.write(header + payload[:2] + close_frame(1012, REASON) + payload[2:])
            elif late and self.fault == "lost byte":
                client.write(header + payload[1:])
            elif late and self.fault == "other byte":
                client.write(header + bytes([payload[0] ^ 1]) + payload[1:])
            elif late and self.fault == "lost frame":
                pass
            elif late and self.fault == "frame twice":
                client.write((header + payload) * 2)
            elif late and self.fault == "foreign ping":
                client.write(header + payload + bytes([PING, 8]) + b"whatever")
            else:
                client.write(header + payload)

    async def close_both(self, client_reader, client, backend_reader, backend):
        fault = self.fault
        code = {"client code": 1001, "forbidden code": 1005}.get(fault, 1012)
        reason = b"" if fault == "no reason" else REASON
        if fault not in ("cut", "torn"):
            client.write(close_frame(code, reason, masked=fault == "masked to client"))
        if fault == "byte behind close":
            client.write(b"\x00")
        if fault == "two closes":
            client.write(close_frame(code, reason))
        if fault == "reset":
            while (await read_frame(client_reader))[0][0] != CLOSE:
                pass
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.transport.abort()
            return
        client.write_eof()
        while await client_reader.read(65536):
            pass
        backend.write_eof()
        while await backend_reader.read(65536):
            pass


FAULTS = {
    "close inside frame": "client: a payload with other bytes|client: a frame that is not",
    "lost byte": "client: a payload with other bytes",
    "other byte": "client: a payload with other bytes",
    "lost frame": "client: a frame that is not the next one|client: a payload with other bytes",
    "frame twice": "client: a frame that is not the next one|client: a payload with other bytes",
    "foreign ping": "client: a frame that is not the next one",
    "masked to client": "client: a masked frame",
    "client code": "client: a CLOSE that nobody asked for: 1001",
    "forbidden code": "client: a CLOSE that nobody asked for: 1005",
    "no reason": 'client: a CLOSE that nobody asked for: 1012 ""',
    "byte behind close": "client: bytes behind the CLOSE",
    "two closes": "client: bytes behind the CLOSE",
    "reset": "client: behind the CLOSE the connection ended by reset",
    "cut": "client: cut between two frames without a CLOSE",
    "torn": "client: torn inside a frame that the backend finished",
    "unmasked": "backend: an unmasked frame",
    "backend code": "backend: a CLOSE that nobody asked for: 1002",
    "byte behind close to backend": "backend: bytes behind the CLOSE",
    "no close to backend": "backend: cut between two frames without a CLOSE",
    "close inside frame of client": "backend: a payload with other bytes",
    "cut message": "a CLOSE inside a message of the client",
}


class CloseStormToolTest(StormCase):
    def figures_against(self, fault):
        """What close_storm reports of sessions through a stand-in with that fault."""
        # Answers in order, and nothing that makes an end leave by itself.
        storm = self.start_storm(7, "--at-once", SESSIONS, "--causes", "max_age=1", "--calm", 1)
        stand_in = StandIn(self.ports[0], fault)
        self.addCleanup(stand_in.close)
        storm.order(f"{stand_in.address} - - {SESSIONS} 0")
        return json.loads(storm.line(60))

    def test_closes_in_order_are_no_violations(self):
        figures = self.figures_against("")
        self.assertEqual((figures["violations"], figures["told"]), (0, []))
        sessions = figures["sessions"]
        self.assertGreaterEqual(sessions, SESSIONS)
        self.assertEqual(figures["labels"], {"max_age": sessions})
        self.assertEqual((figures["closes"], figures["backend_closes"], figures["complete"]),
                         (sessions, sessions, sessions))
        self.assertEqual((figures["torn_client"], figures["torn_backend"]), (0, 0))
        self.assertEqual(figures["failures"], {})

    def test_each_fault_is_found(self):
        for fault, wanted in FAULTS.items():
            with self.subTest(fault):
                figures = self.figures_against(fault)
                self.assertGreaterEqual(figures["violations"], SESSIONS // 2, figures)
                self.assertRegex("\n".join(figures["told"]), wanted)

    def test_a_message_that_nobody_delivers_to_its_end(self):
        """The last frame before the CLOSE is kept back: only the count can tell."""
        figures = self.figures_against("last frame")
        self.assertGreaterEqual(figures["violations"], SESSIONS // 2, figures)
        for told in figures["told"]:
            self.assertRegex(told, r"client: \d+ of \d+ frames of the backend came")


if __name__ == "__main__":
    unittest.main()
