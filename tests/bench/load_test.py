#!/usr/bin/python3
"""The load tool of the benchmark: each mode through a real Sluice for a moment, what it refuses to
believe, and that it does not leave out the waiting when something stalls."""

import base64
import hashlib
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from contenders import make_certificate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
TOOLS = pathlib.Path(SLUICE).parent
SECONDS_TO_START = 20
SECONDS_TO_END = 40

CONFIG = """
[server]
workers = 1
[[listener]]
address = "127.0.0.1:0"
name = "plain"
[[listener]]
address = "127.0.0.1:0"
name = "tls"
tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]
[[route]]
path = "/socket"
pool = "bench"
[pool.bench]
backends = [{{ name = "bench-1", address = "127.0.0.1:{backend}" }}]
[drain]
window = "300ms"
[log]
access = "off"
"""


def load_command(mode, port, *options):
    return [str(TOOLS / "bench_load"), mode, "--port", str(port), *map(str, options)]


def load(mode, port, *options):
    return subprocess.run(load_command(mode, port, *options), capture_output=True, text=True,
                          check=False, stdin=subprocess.DEVNULL, timeout=SECONDS_TO_END)


def end(process):
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


class BenchCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="sluice-bench-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    @classmethod
    def start_backend(cls):
        process = subprocess.Popen([TOOLS / "bench_echo_backend"], stdout=subprocess.PIPE,
                                   text=True)
        cls.addClassCleanup(end, process)
        return int(process.stdout.readline())

    @classmethod
    def start_sluice(cls, backend):
        """The process and its ports by the names of the listeners."""
        cls.chain, key, _ = make_certificate(cls.folder, "proxy")
        config, ready = cls.folder / "sluice.toml", cls.folder / "ready.json"
        config.write_text(CONFIG.format(chain=cls.chain, key=key, backend=backend))
        process = subprocess.Popen([SLUICE, "run", "-c", config], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        cls.addClassCleanup(end, process)
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready.exists():
            assert process.poll() is None and time.monotonic() < deadline, "Sluice does not serve"
            time.sleep(0.01)
        listeners = json.loads(ready.read_text())["listeners"]
        ready.unlink()
        return process, {one["name"]: int(one["address"].rsplit(":", 1)[1]) for one in listeners}

    def result(self, done):
        """What bench_load printed last, after it ended well."""
        self.assertEqual(done.returncode, 0, done.stderr)
        got = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual(got["errors"], 0)
        return got


class ModesThroughSluice(BenchCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.backend = cls.start_backend()
        cls.sluice, cls.ports = cls.start_sluice(cls.backend)

    def counted(self, mode, *options, tls=False, port=None):
        options = [*options, "--seconds", 0.3, "--warmup", 0.1, "--cpu-of", self.sluice.pid]
        if tls:
            options += ["--tls", self.chain]
        got = self.result(load(mode, port or self.ports["tls" if tls else "plain"], *options))
        self.assertGreaterEqual(got["seconds"], 0.25)
        self.assertLess(got["seconds"], 5)
        if port is None:
            self.assertGreater(got["cpu_seconds"], 0)
            self.assertLess(got["cpu_seconds"], 2 * got["seconds"] + 0.1)
        return got

    def assert_latencies(self, got):
        self.assertGreater(got["p50_us"], 0)
        self.assertLessEqual(got["p50_us"], got["p99_us"])
        self.assertLessEqual(got["p99_us"], got["p999_us"])

    def test_echo(self):
        for options in ((), ("--size", 4096), ("--depth", 16), ("--size", 1), ("--size", 70000)):
            for tls in (False, True):
                with self.subTest(options=options, tls=tls):
                    got = self.counted("echo", "--connections", 5, *options, tls=tls)
                    self.assertGreater(got["messages"], 50)
                    self.assert_latencies(got)

    def test_echo_without_a_proxy_uses_no_cpu_of_it(self):
        got = self.counted("echo", "--connections", 5, port=self.backend)
        self.assertGreater(got["messages"], 50)
        self.assertLess(got["cpu_seconds"], 0.05)

    def test_rate_sends_what_was_asked_no_more_no_less(self):
        for tls in (False, True):
            with self.subTest(tls=tls):
                got = self.counted("rate", "--connections", 20, "--rate", 500, tls=tls)
                self.assertAlmostEqual(got["messages"], 500 * 0.3, delta=1)
                self.assert_latencies(got)

    def test_bulk(self):
        for direction in ("down", "up", "both"):
            for tls in (False, True):
                with self.subTest(direction=direction, tls=tls):
                    got = self.counted("bulk", "--connections", 2, "--size", 300000,
                                       "--direction", direction, tls=tls)
                    self.assertGreater(got["messages"], 2)
                    self.assertGreater(got["bytes"], 600000)

    def test_connect(self):
        for options, tls in (((), False), (("--handshake", "full"), True),
                             (("--handshake", "resumed"), True)):
            with self.subTest(options=options, tls=tls):
                got = self.counted("connect", "--connections", 4, *options, tls=tls)
                self.assertGreater(got["connections"], 4)
                # One at the start, when there is only one; with each visit comes the next.
                self.assertLessEqual(got["tickets_reused"], 4)
                self.assert_latencies(got)

    def test_http(self):
        for options, tls in (((), False), (("--size", 70000), False), ((), True)):
            with self.subTest(options=options, tls=tls):
                got = self.counted("http", "--connections", 4, *options, tls=tls)
                self.assertGreater(got["messages"], 20)
                self.assert_latencies(got)

    def test_http_without_a_proxy_keeps_its_connections(self):
        got = self.counted("http", "--connections", 4, port=self.backend)
        self.assertGreater(got["messages"], 20)

    def test_streams_of_events_are_held(self):
        for tls in (False, True):
            with self.subTest(tls=tls):
                options = ["--tls", self.chain] if tls else []
                command = load_command("events", self.ports["tls" if tls else "plain"],
                                       "--connections", 30, *options)
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                           text=True)
                self.addCleanup(end, process)
                self.assertEqual(process.stdout.readline(), "ready\n")
                process.stdin.close()
                self.assertEqual(json.loads(process.stdout.readline()),
                                 {"sessions": 30, "errors": 0})
                self.assertEqual(process.wait(SECONDS_TO_END), 0)

    def test_idle_sessions_take_a_burst(self):
        command = load_command("idle", self.ports["tls"], "--connections", 30, "--burst", 3,
                               "--size", 65536, "--tls", self.chain)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        self.addCleanup(end, process)
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.stdin.write("\n")
        process.stdin.flush()
        self.assertEqual(process.stdout.readline(), "done\n")
        process.stdin.close()
        got = json.loads(process.stdout.readline())
        self.assertEqual(process.wait(SECONDS_TO_END), 0)
        self.assertEqual(got, {"sessions": 30, "messages": 90, "errors": 0})


class DrainOfSluice(BenchCase):
    def test_every_session_is_told_to_come_back(self):
        sluice, ports = self.start_sluice(self.start_backend())
        command = load_command("drain", ports["plain"], "--connections", 40, "--rate", 400,
                               "--seconds", 20)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True)
        self.addCleanup(end, process)
        self.assertEqual(process.stdout.readline(), "ready\n")
        sluice.terminate()
        process.stdin.write("\n")
        process.stdin.flush()
        got = json.loads(process.stdout.readline())
        self.assertEqual(process.wait(SECONDS_TO_END), 0)
        self.assertEqual(got["codes"], {"1012": 40})
        self.assertEqual((got["sessions"], got["open"], sum(got["spread"])), (40, 0, 40))
        self.assertGreater(got["last_ms"] - got["first_ms"], 100)
        self.assertEqual(sluice.wait(SECONDS_TO_END), 0)


def read_exactly(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def read_frame(connection):
    """A client's frame: (first byte, payload unmasked)."""
    first, second = read_exactly(connection, 2)
    size = second & 0x7F
    if size == 126:
        size, = struct.unpack(">H", read_exactly(connection, 2))
    key = read_exactly(connection, 4)
    payload = read_exactly(connection, size)
    return first, bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def frame(first, payload):
    return bytes([first, len(payload)]) + payload  # below 126 bytes


class OddServer:
    """A server in place of a proxy; `talk(connection)` goes on after the 101, one thread each."""

    def __init__(self, talk=lambda connection: None, answer=None):
        self.talk, self.answer = talk, answer
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()
        except OSError:
            pass  # closed: the test is over

    def serve(self, connection):
        with connection:
            try:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += read_exactly(connection, 1)
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", head).group(1)
                accept = base64.b64encode(hashlib.sha1(
                    key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                connection.sendall(self.answer or (
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"))
                self.talk(connection)
            except OSError:
                pass

    def close(self):
        self.listener.close()


class PageServer:
    """Gives the same bytes to whoever connects and asks, again and again."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            connection, _ = self.listener.accept()
            with connection:
                while connection.recv(4096):
                    connection.sendall(self.answer)
        except OSError:
            pass  # closed: the test is over

    def close(self):
        self.listener.close()


class WhatTheLoadRefuses(BenchCase):
    def serve(self, talk=lambda connection: None, answer=None):
        server = OddServer(talk, answer)
        self.addCleanup(server.close)
        return server.port

    def refused(self, done, sentence):
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertIn(sentence, done.stderr)

    def echo(self, port, *options):
        return load("echo", port, "--connections", 1, "--seconds", 0.2, "--warmup", 0, *options)

    def test_an_answer_that_is_no_101(self):
        port = self.serve(answer=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self.refused(self.echo(port), "answered 'HTTP/1.1 404 Not Found'")
        self.refused(load("connect", port), "answered 'HTTP/1.1 404 Not Found'")

    def test_a_wrong_accept_key(self):
        port = self.serve(answer=b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 b"Connection: Upgrade\r\n"
                                 b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")
        self.refused(self.echo(port), "wrong Sec-WebSocket-Accept")

    def test_one_changed_bit(self):
        def talk(connection):
            while True:
                first, payload = read_frame(connection)
                connection.sendall(frame(first, payload[:-1] + bytes([payload[-1] ^ 1])))
        self.refused(self.echo(self.serve(talk)), "message 0 came back changed")

    def test_an_echo_twice(self):
        def talk(connection):
            while True:
                first, payload = read_frame(connection)
                connection.sendall(2 * frame(first, payload))
        self.refused(self.echo(self.serve(talk)), "connection 0: ")

    def test_a_large_message_with_a_hole(self):
        # A byte is missing in a message whose payload nobody looks at: the next header shows it.
        def talk(connection):
            whole = struct.pack(">BBQ", 0x82, 127, 100000) + bytes(100000)
            while True:
                connection.sendall(whole[:-1])
        port = self.serve(talk)
        done = load("bulk", port, "--size", 100000, "--connections", 1, "--seconds", 1)
        self.refused(done, "connection 0: ")

    def test_pages_and_streams_that_are_not_what_the_backend_sent(self):
        ok = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
        rows = (("http", b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nnone", "answered"),
                ("http", b"HTTP/1.1 200 OK\r\n\r\nabcd", "without the right Content-Length"),
                ("http", ok + b"Connection: close\r\n\r\nabcd", "is not kept"),
                ("http", ok + b"\r\nabcd", "not what the backend sent"),
                ("events", ok + b"\r\nabcd", "a stream was answered"))
        for mode, answer, sentence in rows:
            with self.subTest(sentence=sentence):
                server = PageServer(answer)
                self.addCleanup(server.close)
                self.refused(load(mode, server.port, "--connections", 1, "--size", 4), sentence)

    def test_an_end_without_a_close(self):
        self.refused(self.echo(self.serve()), "was closed by the other side")
        self.refused(load("connect", self.serve()), "was closed by the other side")

    def test_a_certificate_of_somebody_else(self):
        _, ports = self.start_sluice(9)
        other, _, _ = make_certificate(self.folder, "other")
        self.refused(self.echo(ports["tls"], "--tls", other), "certificate verify failed")

    def test_a_port_where_nobody_listens(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.refused(self.echo(port), "Connection refused")

    def test_a_command_line_that_means_nothing(self):
        for words in (["sing"], ["echo"], ["echo", "--port", "x"], ["echo", "--port"],
                      ["bulk", "--port", "1", "--direction", "left"],
                      ["connect", "--port", "1", "--handshake", "resumed"]):
            with self.subTest(words=words):
                done = subprocess.run([TOOLS / "bench_load", *words], capture_output=True,
                                      text=True, check=False, timeout=SECONDS_TO_END)
                self.refused(done, "bench_load: ")


class WhatTheLoadTakes(BenchCase):
    def test_a_ping_while_idle_is_answered(self):
        answers = []
        answered = threading.Event()

        def talk(connection):
            connection.sendall(frame(0x89, b"still there?"))
            answers.append(read_frame(connection))
            answered.set()
            read_exactly(connection, 1)

        server = OddServer(talk)
        self.addCleanup(server.close)
        process = subprocess.Popen(load_command("idle", server.port, "--connections", 1),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(end, process)
        self.assertTrue(answered.wait(SECONDS_TO_START))
        self.assertEqual(answers, [(0x8A, b"still there?")])
        process.stdin.close()
        self.assertEqual(process.wait(SECONDS_TO_END), 0)

    def stalling_server(self, stall):
        """Echoes; the message with number 20 of each connection waits for `stall` seconds."""
        def talk(connection):
            for number in range(1 << 30):
                first, payload = read_frame(connection)
                if number == 20:
                    time.sleep(stall)  # is what is tested
                connection.sendall(frame(first, payload))
        server = OddServer(talk)
        self.addCleanup(server.close)
        return server.port

    def test_waiting_behind_a_stall_is_in_the_figures(self):
        # 200 messages/s for a second: some 20 are due while the other side stands still for 100 ms,
        # a tenth of all. A load that waits for answers before it goes on would count one.
        got = self.result(load("rate", self.stalling_server(0.1), "--connections", 1, "--rate", 200,
                               "--seconds", 1, "--warmup", 0))
        self.assertEqual(got["messages"], 200)
        self.assertGreater(got["p99_us"], 80_000)
        self.assertLess(got["p50_us"], 50_000)


if __name__ == "__main__":
    unittest.main()
