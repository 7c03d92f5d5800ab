#!/usr/bin/python3
"""Debian's python3-websockets on both sides of Sluice: what arrives is what arrives without it."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import websockets

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
CLOSE_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]

CONFIGURATION = """
[[listener]]
name = "plain"
address = "127.0.0.1:0"

[[route]]
path = "/"
pool = "python"

[pool.python]
backends = [{{ name = "python", address = "127.0.0.1:{port}" }}]

[admin]
address = "127.0.0.1:0"

[log]
access = "off"

[drain]
window = "1s"
"""


class Sluice:
    """The binary in front of a backend on `port`, for the time of a `with` block."""

    def __init__(self, port):
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        folder = pathlib.Path(self.folder.name)
        (folder / "sluice.toml").write_text(CONFIGURATION.format(port=port))
        ready = folder / "ready.json"
        self.process = subprocess.Popen([SLUICE, "run", "-c", str(folder / "sluice.toml")],
                                        env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        deadline = time.monotonic() + 10
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError("sluice does not start")
            time.sleep(0.01)
        self.url = "ws://" + json.loads(ready.read_text())["listeners"][0]["address"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.status = self.process.wait(timeout=15)
        finally:
            self.process.kill()
            self.folder.cleanup()


async def serve(connection):
    """Echoes; {"close": [code, reason]} makes it close so; what it saw goes into `serve.seen`."""
    seen = [("path", connection.path)]
    try:
        async for message in connection:
            seen.append(("message", message))
            if isinstance(message, str) and message.startswith('{"close"'):
                await connection.close(*json.loads(message)["close"])
                break
            await connection.send(message)
    except websockets.ConnectionClosedError:
        pass
    await connection.wait_closed()
    seen.append(("close", connection.close_code, connection.close_reason))
    serve.seen.put_nowait(seen)


class WebsocketsTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        serve.seen = asyncio.Queue()
        self.server = await websockets.serve(serve, "127.0.0.1", 0, max_size=None)
        port = self.server.sockets[0].getsockname()[1]
        self.direct = f"ws://127.0.0.1:{port}"
        self.sluice = Sluice(port)
        self.sluice.__enter__()

    async def asyncTearDown(self):
        await asyncio.get_running_loop().run_in_executor(None, self.sluice.__exit__)
        self.server.close()
        await self.server.wait_closed()
        self.assertEqual(self.sluice.status, 0)

    async def compare(self, act, **options):
        """Runs `act` without Sluice and with it. Returns what both ends saw, the same both times."""
        seen = []
        for url in (self.direct, self.sluice.url):
            async with websockets.connect(f"{url}/chat?room=1", max_size=None,
                                          **options) as connection:
                client = await asyncio.wait_for(act(connection), 30)
                await connection.wait_closed()
            client.append(("close", connection.close_code, connection.close_reason))
            backend = await asyncio.wait_for(serve.seen.get(), 10)
            seen.append((client, backend))
        direct, through = seen
        self.assertEqual(through, direct)
        return through

    async def test_messages_of_every_size(self):
        async def act(connection):
            got = []
            for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
                for message in ("é" * size, bytes(size)):
                    await connection.send(message)
                    got.append(("message", await connection.recv()))
            await connection.close(1000, "bye")
            return got

        for compression in ("deflate", None):
            with self.subTest(compression=compression):
                client, backend = await self.compare(act, compression=compression)
                self.assertEqual(len(client), 15)
                self.assertEqual(backend[0], ("path", "/chat?room=1"))
                self.assertEqual(backend[-1], ("close", 1000, "bye"))

    async def test_a_message_in_fragments(self):
        async def act(connection):
            await connection.send(["one ", "two ", "", "three" * 20000])
            got = [("message", await connection.recv())]
            await connection.close()
            return got

        client, _ = await self.compare(act)
        self.assertEqual(client[0], ("message", "one two " + "three" * 20000))

    async def test_pings_are_answered_end_to_end(self):
        async def act(connection):
            for payload in (b"", b"x", b"y" * 125):
                await (await connection.ping(payload))
            await connection.close()
            return ["ponged"]

        await self.compare(act)

    async def test_close_codes_of_either_side(self):
        for code in CLOSE_CODES:
            async def client_closes(connection):
                await connection.close(code, f"because {code}")
                return []

            async def backend_closes(connection):
                await connection.send(json.dumps({"close": [code, f"because {code}"]}))
                return []

            with self.subTest(code=code):
                _, backend = await self.compare(client_closes)
                self.assertEqual(backend[-1], ("close", code, f"because {code}"))
                client, _ = await self.compare(backend_closes)
                self.assertEqual(client[-1], ("close", code, f"because {code}"))


if __name__ == "__main__":
    unittest.main()
