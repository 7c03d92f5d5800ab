#!/usr/bin/python3
"""Debian's python3-websockets through Sluice to aiohttp and tornado, two other implementations of
the protocol: what arrives is what arrives without Sluice, and a rolling restart loses nobody."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request

import websockets

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
BACKEND = ROOT / "tests/e2e/lib/python_backend.py"
FRAMEWORKS = ["aiohttp", "tornado"]
CLOSE_CODES = [1000, 1001, 1011, 3000, 4999]
CLIENTS = 10

CONFIGURATION = """
[[listener]]
name = "plain"
address = "127.0.0.1:0"

[[route]]
path = "/"
pool = "python"

[pool.python]
balance = "round_robin"
slow_start = "0s"
backends = [
  {{ name = "one", address = "{one}" }},
  {{ name = "two", address = "{two}" }},
]

[admin]
address = "127.0.0.1:0"

[log]
level = "warn"
access = "off"

[drain]
window = "300ms"
"""


class Backend:
    """A process of python_backend.py that can be started again at the address that it had."""

    def __init__(self, framework, name):
        self.framework = framework
        self.name = name
        self.address = "127.0.0.1:0"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(BACKEND), self.framework, self.name,
             self.address.rsplit(":", 1)[1]], stdout=subprocess.PIPE)
        self.address = json.loads(self.process.stdout.readline())["address"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        finally:
            self.process.kill()
            self.process.stdout.close()

    def seen(self):
        with urllib.request.urlopen(f"http://{self.address}/seen", timeout=10) as answer:
            return json.load(answer)


class Sluice:
    def __init__(self, backends):
        self.folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        folder = pathlib.Path(self.folder.name)
        one, two = (backend.address for backend in backends)
        (folder / "sluice.toml").write_text(CONFIGURATION.format(one=one, two=two))
        ready = folder / "ready.json"
        self.process = subprocess.Popen([SLUICE, "run", "-c", str(folder / "sluice.toml")],
                                        env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        deadline = time.monotonic() + 10
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError("sluice does not start")
            time.sleep(0.01)
        facts = json.loads(ready.read_text())
        self.address = facts["listeners"][0]["address"]
        self.admin = facts["admin"]

    async def control(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            SLUICE, *arguments, "--admin", self.admin, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT)
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        if process.returncode != 0:
            raise AssertionError(f"sluice {arguments}: {output.decode()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=15)
        finally:
            self.process.kill()
            self.folder.cleanup()


class PythonServersTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # on by itself here, and slow

    def begin(self, framework):
        backends = [Backend(framework, name) for name in ("one", "two")]
        for backend in backends:
            self.addCleanup(backend.stop)
        sluice = Sluice(backends)
        self.addCleanup(lambda: self.assertEqual(sluice.stop(), 0))
        return backends, sluice

    async def ends_of(self, backends):
        """How the last session ended, as the backend that had it says."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            ends = []
            for backend in backends:
                ends += await asyncio.to_thread(backend.seen)
            if ends:
                return ends
            await asyncio.sleep(0.01)
        self.fail("no backend has seen the end of a session")

    async def compare(self, framework, act, **options):
        """Runs `act` without Sluice and with it. Returns what both ends saw, the same both times."""
        backends, sluice = self.backends[framework]
        seen = []
        for address in (backends[0].address, sluice.address):
            async with websockets.connect(f"ws://{address}/echo", max_size=None,
                                          **options) as connection:
                client = await asyncio.wait_for(act(connection), 30)
                await asyncio.wait_for(connection.wait_closed(), 10)
            client.append((connection.close_code, connection.close_reason))
            client.append([str(extension) for extension in connection.extensions])
            seen.append((client, await self.ends_of(backends)))
        direct, through = seen
        self.assertEqual(through, direct)
        return through

    async def test_what_arrives_is_what_arrives_without_sluice(self):
        self.backends = {framework: self.begin(framework) for framework in FRAMEWORKS}

        async def talk(connection):
            got = []
            for message in ("text é", b"\x00\xff" * 50, "", b"", "x" * 126, bytes(65536),
                            "é" * (1 << 19), os.urandom(1 << 20)):
                await connection.send(message)
                answer = await connection.recv()
                self.assertEqual(answer, message)
                got.append(len(answer))
            await connection.send(["in ", "three ", "fragments" * 20000])
            got.append(await connection.recv())
            for payload in (b"", b"x", b"y" * 125):
                await (await connection.ping(payload))
            await connection.close(1000, "bye")
            return got

        for framework in FRAMEWORKS:
            for compression in ("deflate", None):
                with self.subTest(framework=framework, compression=compression):
                    client, ends = await self.compare(framework, talk, compression=compression)
                    self.assertEqual(client[-1] != [], compression == "deflate")
                    self.assertEqual(client[-3], "in three " + "fragments" * 20000)
                    self.assertEqual([code for code, _ in ends], [1000])

            for code in CLOSE_CODES:
                async def client_closes(connection):
                    await connection.close(code, f"because {code}")
                    return []

                async def backend_closes(connection):
                    await connection.send(json.dumps({"close": [code, f"because {code}"]}))
                    return []

                with self.subTest(framework=framework, code=code):
                    _, ends = await self.compare(framework, client_closes)
                    self.assertEqual(ends[0][0], code)
                    client, _ = await self.compare(framework, backend_closes)
                    self.assertEqual(client[-2], (code, f"because {code}"))

    async def test_clients_come_back_in_a_rolling_restart(self):
        async def talk(sluice, state):
            """Echoes for as long as the test goes on; connects anew as websockets does by itself."""
            async for connection in websockets.connect(f"ws://{sluice.address}/echo"):
                state["sessions"] += 1
                state["backend"] = connection.response_headers["X-Backend"]
                try:
                    while not state["over"]:
                        number = str(state["echoes"] + 1)
                        await connection.send(number)
                        if await connection.recv() != number:
                            state["wrong"] += 1
                        state["echoes"] += 1
                        await asyncio.sleep(0.01)
                    await connection.close()
                    return
                except websockets.ConnectionClosed as closed:
                    state["closes"].append((closed.rcvd.code, closed.rcvd.reason)
                                           if closed.rcvd else None)

        async def wait_for(holds, states):
            deadline = time.monotonic() + 15
            while not holds():
                self.assertLess(time.monotonic(), deadline, states)
                await asyncio.sleep(0.01)

        async def everyone_talks(states):
            before = [state["echoes"] for state in states]
            await wait_for(lambda: all(state["echoes"] >= had + 2
                                       for state, had in zip(states, before)), states)

        for framework in FRAMEWORKS:
            with self.subTest(framework=framework):
                backends, sluice = self.begin(framework)
                states = [{"sessions": 0, "echoes": 0, "wrong": 0, "over": False, "closes": [],
                           "backend": None} for _ in range(CLIENTS)]
                tasks = [asyncio.create_task(talk(sluice, state)) for state in states]
                await everyone_talks(states)
                self.assertEqual({state["backend"] for state in states}, {"one", "two"})
                for backend in backends:
                    await sluice.control("drain", backend.name, "--wait")
                    await wait_for(lambda: all(state["backend"] != backend.name
                                               for state in states), states)
                    ends = await asyncio.to_thread(backend.seen)
                    self.assertEqual({code for code, _ in ends}, {1001})
                    await asyncio.to_thread(backend.stop)
                    await asyncio.to_thread(backend.start)
                    await sluice.control("undrain", backend.name)
                    await everyone_talks(states)
                for state in states:
                    state["over"] = True
                await asyncio.wait_for(asyncio.gather(*tasks), 15)
                for state in states:
                    self.assertEqual(state["wrong"], 0)
                    self.assertEqual(state["sessions"], len(state["closes"]) + 1)
                    self.assertIn(len(state["closes"]), (1, 2))
                    self.assertEqual(set(state["closes"]), {(1012, "service restart")})


if __name__ == "__main__":
    unittest.main()
