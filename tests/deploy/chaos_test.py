#!/usr/bin/python3
"""The chaos proxy does what its rules say, and nothing else."""

import select
import socket
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from chaos import Chaos, close_with_reset  # noqa: E402
from lab import wait_for  # noqa: E402

PATIENCE = 5


class Server:
    """Keeps what connects to it; each connection is talked to by hand."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.target = self.listener.getsockname()

    def accept(self):
        connection, _ = self.listener.accept()
        connection.settimeout(PATIENCE)
        return connection


class ChaosTest(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.listener.close)

    def start(self, **options):
        self.chaos = Chaos(self.server.target, **options)
        self.addCleanup(self.chaos.close)

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.chaos.port), PATIENCE)
        self.addCleanup(client.close)
        return client

    def pair(self):
        """Both ends of a link through it, and the link."""
        client = self.connect()
        backend = self.server.accept()
        self.addCleanup(backend.close)
        return client, backend, self.chaos.links[-1]

    def read_all(self, connection):
        got = b""
        while data := connection.recv(65536):
            got += data
        return got

    def assert_silent(self, connection, seconds=0.15):
        self.assertEqual(select.select([connection], [], [], seconds)[0], [])

    def test_without_rules_it_passes_everything_on(self):
        self.start()
        client, backend, link = self.pair()
        sent = bytes(range(256)) * 4000
        for source, sink in ((client, backend), (backend, client)):
            threading.Thread(target=lambda s=source: (s.sendall(sent), s.shutdown(socket.SHUT_WR)),
                             daemon=True).start()
            self.assertEqual(self.read_all(sink), sent)
        self.assertEqual((link.to_backend.forwarded, link.to_client.forwarded),
                         (len(sent), len(sent)))
        self.assertEqual(link.to_backend.captured, sent[:4096])
        wait_for("the end of the link", lambda: not link.is_open)

    def test_a_reset_of_either_side_is_passed_on(self):
        self.start()
        for number in (0, 1):
            ends = self.pair()
            close_with_reset(ends[number])
            with self.assertRaises(ConnectionResetError):
                ends[1 - number].recv(1)

    def test_a_delay_is_for_one_direction(self):
        def rules(link):
            link.to_client.delay = 0.2
        self.start(on_link=rules)
        client, backend, _ = self.pair()
        began = time.monotonic()
        client.sendall(b"x")
        self.assertEqual(backend.recv(1), b"x")
        self.assertLess(time.monotonic() - began, 0.15)
        began = time.monotonic()
        backend.sendall(b"y")
        self.assertEqual(client.recv(1), b"y")
        self.assertGreaterEqual(time.monotonic() - began, 0.2)

    def test_one_byte_at_a_time(self):
        def rules(link):
            link.to_backend.dribble = True
        self.start(on_link=rules)
        client, backend, link = self.pair()
        client.sendall(b"0123456789")
        client.shutdown(socket.SHUT_WR)
        self.assertEqual(self.read_all(backend), b"0123456789")
        self.assertEqual(link.to_backend.writes, 10)

    def test_a_cut_behind_so_many_bytes_with_fin(self):
        def rules(link):
            link.to_client.cut_at = 7
        self.start(on_link=rules)
        client, backend, link = self.pair()
        backend.sendall(b"0123456789")
        self.assertEqual(self.read_all(client), b"0123456")
        self.assertAlmostEqual(link.cut_at, time.monotonic(), delta=1)
        with self.assertRaises(ConnectionResetError):
            backend.recv(1)
        client.sendall(b"nobody reads it, and it does no harm")
        self.assertEqual(client.recv(1), b"")

    def test_a_cut_behind_so_many_bytes_with_rst(self):
        def rules(link):
            link.to_client.cut_at = 7
            link.to_client.cut_with = "rst"
        self.start(on_link=rules)
        client, backend, _ = self.pair()
        backend.sendall(b"0123456789")
        with self.assertRaises(ConnectionResetError):
            while True:
                self.assertNotEqual(client.recv(100), b"")

    def test_a_cut_now(self):
        self.start()
        client, backend, _ = self.pair()
        client.sendall(b"x")
        self.assertEqual(backend.recv(1), b"x")
        self.assertEqual(len(self.chaos.cut_all("fin")), 1)
        self.assertEqual(client.recv(1), b"")
        client, _, link = self.pair()
        wait_for("both pumps", lambda: len(link._pumps) == 2)
        self.assertEqual(self.chaos.cut_all("rst"), [link])
        with self.assertRaises(ConnectionResetError):
            client.recv(1)

    def test_a_blackhole_while_open_is_for_one_direction(self):
        self.start()
        client, backend, link = self.pair()
        client.sendall(b"through")
        self.assertEqual(backend.recv(100), b"through")
        self.chaos.call(lambda: setattr(link.to_backend, "blackhole", True))
        client.sendall(b"gone")
        self.assert_silent(backend)
        self.assertEqual(link.to_backend.swallowed, 4)
        self.assertAlmostEqual(link.to_backend.first_swallowed_at, time.monotonic(), delta=1)
        backend.sendall(b"still there")
        self.assertEqual(client.recv(100), b"still there")

    def test_a_blackhole_tells_nobody_of_an_end(self):
        self.start()
        client, backend, link = self.pair()
        self.chaos.call(lambda: setattr(link.to_client, "blackhole", True))
        backend.close()
        self.assert_silent(client)

    def test_a_blackhole_from_the_start(self):
        self.start()
        self.chaos.mode = "blackhole"
        client = self.connect()
        client.sendall(b"hello?")
        self.assert_silent(client)
        self.assert_silent(self.server.listener, 0)

    def test_refusing(self):
        self.start()
        self.chaos.mode = "refuse"
        with self.assertRaises(ConnectionResetError):
            self.connect().recv(1)
        self.assertEqual(self.chaos.links, [])

    def test_a_target_that_is_not_there_resets(self):
        self.start()
        self.server.listener.close()
        with self.assertRaises(ConnectionResetError):
            self.connect().recv(1)

    def test_it_knows_whose_upgrade_went_through(self):
        self.start()
        client, backend, link = self.pair()
        self.assertIsNone(link.identity)
        client.sendall(b"GET /s?uid=17&n=3 HTTP/1.1\r\n\r\n")
        backend.sendall(b"HTTP/1.1 101 \r\n\r\nframes")
        self.assertEqual(client.recv(100), b"HTTP/1.1 101 \r\n\r\nframes")
        # Noted once it has been passed on, which may be a moment after it came.
        wait_for("the head to be noted", lambda: link.head_size is not None)
        self.assertEqual(link.identity, (17, 3))
        self.assertEqual(link.head_size, 17)


if __name__ == "__main__":
    unittest.main()
