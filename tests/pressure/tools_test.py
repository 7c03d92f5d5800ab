#!/usr/bin/python3
"""The tools of the pressure tests, without Sluice between: a figure of theirs is worth something
only if they do what they say and see what goes wrong.
"""

import os
import signal
import socket
import threading
import unittest

from pressure import Crowd, Flood, PressureCase, Probe, wait_for

SECONDS = 0.3


class Listener:
    """Takes connections, keeps what they say, and ends them with `answer` after SECONDS."""

    def __init__(self, answer=b""):
        self._answer, self._socket = answer, socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]
        self.heard = []  # a list of chunks for each connection
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        chunks = []
        self.heard.append(chunks)
        timer = threading.Timer(SECONDS, self._end, args=(connection,))
        timer.start()
        with connection:
            while chunk := connection.recv(65536):
                chunks.append(chunk)
            timer.join()

    def _end(self, connection):
        connection.sendall(self._answer)
        connection.shutdown(socket.SHUT_WR)

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class ToolsCase(PressureCase):
    def listen(self, answer=b""):
        listener = Listener(answer)
        self.addCleanup(listener.close)
        return listener


class ProbeTest(ToolsCase):
    def test_sees_that_nobody_answers_and_that_sessions_end(self):
        [address] = self.start_backends(["one"]).values()
        probe = self.start(Probe, address, "--sessions", 5, "--rate", 100, "--upgrades", 50)
        total = {"echoes": 0, "upgrades": 0}

        def served():
            window = probe.window()
            self.assertEqual((window["open"], window["failures"], window["closes"]), (5, {}, {}))
            for name in total:
                total[name] += window[name]
            return total["echoes"] > 50 and total["upgrades"] > 5
        wait_for("echoes", served)
        process = self.backends["one"].tool.process
        os.kill(process.pid, signal.SIGSTOP)
        wait_for("echoes that do not come", lambda: probe.window()["oldest_ms"] > 200)
        self.assertGreater(probe.window()["waiting"], 5 * 10)
        os.kill(process.pid, signal.SIGCONT)
        late = wait_for("the late ones", lambda: self.with_echoes(probe))
        self.assertGreater(late["max_ms"], 200)
        self.backends["one"].kill()
        ends = wait_for("the end of all", lambda: self.without_sessions(probe))
        self.assertLessEqual(set(ends["closes"]), {"1006"})
        refused = wait_for("refusals", lambda: probe.window()["failures"])
        self.assertIn("refused", refused)
        self.assertEqual(probe.upgrade()["failure"], "refused")

    @staticmethod
    def with_echoes(probe):
        window = probe.window()
        return window if window["echoes"] > 0 else None

    @staticmethod
    def without_sessions(probe):
        window = probe.window()
        return window if window["open"] == 0 else None


class CrowdTest(ToolsCase):
    def ended(self, listener, kind, *options):
        crowd = self.start(Crowd, listener.address, kind, 10, *options)
        wait_for("the end of the crowd", crowd.is_gone)
        return crowd.report()

    def assert_lifetimes(self, report):
        self.assertGreater(report["shortest"], SECONDS / 2)
        self.assertGreaterEqual(report["longest"], report["shortest"])
        self.assertEqual(report["ended"], {"fin": 10})

    def test_says_nothing(self):
        listener = self.listen()
        self.assert_lifetimes(self.ended(listener, "silent"))
        self.assertEqual(listener.heard, [[]] * 10)

    def test_sends_a_head_byte_by_byte(self):
        listener = self.listen(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        report = self.ended(listener, "slow-head", "--every", 50)
        self.assert_lifetimes(report)
        self.assertEqual(report["statuses"], {"408": 10})
        for chunks in listener.heard:
            self.assertEqual({len(chunk) for chunk in chunks}, {1})
            self.assertTrue(b"GET /s?uid=1".startswith(b"".join(chunks)[:9]))

    def test_sends_half_a_client_hello(self):
        listener = self.listen()
        self.assert_lifetimes(self.ended(listener, "half-hello"))
        for chunks in listener.heard:
            record = b"".join(chunks)
            self.assertEqual(record[:2], b"\x16\x03")  # a handshake of TLS
            self.assertLess(len(record), 5 + int.from_bytes(record[3:5], "big"))

    def test_reads_no_faster_than_it_is_to(self):
        [address] = self.start_backends(["one"], "--rate", 100, "--size", 1024).values()
        crowd = self.start(Crowd, address, "slow-reader", 10, "--read", 1024)
        began = wait_for("all 101", lambda: self.upgraded(crowd))
        later = wait_for("a while", lambda: self.after(crowd, began["at"] + 1))
        most = 10 * 1024 * (later["at"] - began["at"] + 0.5)
        self.assertLess(later["bytes_read"] - began["bytes_read"], most)
        self.assertGreater(later["bytes_read"] - began["bytes_read"], most / 4)

    @staticmethod
    def upgraded(crowd):
        report = crowd.report()
        return report if report["statuses"] == {"101": 10} else None

    @staticmethod
    def after(crowd, at):
        report = crowd.report()
        return report if report["at"] > at else None

    def test_garbage_is_the_same_again(self):
        heard = []
        for _ in range(2):
            listener = self.listen()
            self.ended(listener, "garbage", "--seed", 7)
            heard.append(sorted(b"".join(chunks) for chunks in listener.heard))
        self.assertEqual(heard[0], heard[1])
        self.assertGreater(len(set(heard[0])), 8)


class FloodTest(ToolsCase):
    def flood(self, kind, count, *options):
        [address] = self.start_backends(["one"]).values()
        said = self.start(Flood, address, kind, count, *options).finish()
        return said, self.reported([])[1]

    def test_messages_arrive_in_their_bytes(self):
        for kind, header in (("fragments", 7), ("segments", 1)):
            with self.subTest(kind):
                said, _ = self.flood(kind, 3200)
                self.assertEqual((said["close_code"], said["ended"]), (1000, "fin"))
                self.assertEqual(said["bytes"], said["sent"] * header)
                line = wait_for("the session", self.sessions)[-1]
                self.assertEqual((line["received_count"], line["ended"]),
                                 (said["messages"], "close"))

    def test_pings_are_counted_with_their_answers(self):
        said, _ = self.flood("pings", 5000, "--rate", 50_000)
        self.assertEqual((said["sent"], said["pongs"], said["close_code"]), (5000, 5000, 1000))
        self.assertGreater(said["seconds"], 0.09)

    def test_sees_a_close(self):
        listener = self.listen(b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x88\x02\x03\xf0")
        said = self.start(Flood, listener.address, "pings", 10_000_000, "--rate", 1000).finish()
        self.assertEqual(said["close_code"], 1008)
        self.assertLess(said["sent"], 10_000)


if __name__ == "__main__":
    unittest.main()
