#!/usr/bin/python3
"""The tools of the deploy tests, without Sluice: straight to each other they lose nothing, and each
fault that a bad peer commits is found and named. A detector that has never detected proves nothing.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from chaos import close_with_reset  # noqa: E402
from lab import (TOOLS, Backend, Client, LabCase, binned, judge, peak_ratio,  # noqa: E402
                 wait_for)

FROM_CLIENT, FROM_BACKEND = 0x434C4E54, 0x42434B44
NUMBERED = struct.Struct("=IIIIQq")
BINARY, TEXT, CONTINUATION, CLOSE, PING = 0x82, 0x81, 0x80, 0x88, 0x89


def read_exactly(connection, size):
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the end")
        data += part
    return data


def read_frame(connection):
    """(first byte, payload) of a small masked frame."""
    first, second = read_exactly(connection, 2)
    key = read_exactly(connection, 4)
    payload = read_exactly(connection, second & 0x7F)
    return first, bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def frame(first, payload):
    return bytes([first, len(payload)]) + payload  # below 126 bytes


class Peer:
    """The session that a bad server talks to."""

    def __init__(self, connection, uid, n):
        self.connection, self.uid, self.n = connection, uid, n

    def numbered(self, number, uid=None, first=BINARY):
        return frame(first, NUMBERED.pack(FROM_BACKEND, uid or self.uid, self.n, 0, number,
                                          time.monotonic_ns()))

    def say(self, *numbers):
        self.connection.sendall(b"".join(map(self.numbered, numbers)))

    def close(self, code=1012):
        """A CLOSE in order; returns the payload of the answer."""
        self.connection.sendall(frame(CLOSE, struct.pack(">H", code)))
        while True:
            first, payload = read_frame(self.connection)
            if first == CLOSE:
                self.connection.shutdown(socket.SHUT_WR)
                return payload


class BadServer:
    """Upgrades the first connection and lets `act(peer)` talk; others get no answer."""

    def __init__(self, act, answer=None):
        self.act, self.answer, self.failure = act, answer, None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.others = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(10)
            with connection:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += read_exactly(connection, 1)
                uid, n = re.search(rb"uid=(\d+)&n=(\d+)", head).groups()
                key = re.search(rb"Sec-WebSocket-Key: (\S+)", head).group(1)
                accept = base64.b64encode(hashlib.sha1(
                    key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
                connection.sendall(self.answer or (
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"))
                try:
                    self.act(Peer(connection, int(uid), int(n)))
                except (ConnectionError, TimeoutError) as error:
                    self.failure = error
            while True:
                self.others.append(self.listener.accept()[0])
        except OSError:
            pass  # the test is over

    def close(self):
        self.listener.close()
        for connection in self.others:
            connection.close()


class ToolsCase(LabCase):
    def start_client_at(self, address, *options, name="client"):
        return self.start(Client, name, address, *options)

    def against(self, act, *options, answer=None):
        """What the client reports of its first incarnation with a server that does `act`."""
        server = BadServer(act, answer)
        self.addCleanup(server.close)
        client = self.start_client_at(server.address, "--sessions", 1, "--policy", "fixed:60000",
                                      *options)

        def ended():
            client.summary()
            return client.incarnations()
        if answer is None:
            client.wait_until_open()
        [one] = wait_for("the end of an incarnation", ended)
        self.final = client.finish()
        return one


class StraightToEachOther(ToolsCase):
    def test_nothing_is_lost(self):
        address = self.start_backends(["one"], "--rate", 20)["one"]
        client = self.start_client_at(address, "--sessions", 200, "--rate", 20)
        self.assertEqual(client.wait_until_open(), 200)
        wait_for("traffic", lambda: client.summary()["sent"] > 200 * 15)
        summary = client.finish()
        self.assertEqual(summary["own_closes"], {"1000": 200})
        for nothing in ("closes", "failures", "violations"):
            self.assertEqual(summary[nothing], {})
        for zero in ("open", "torn", "unclean", "gaps", "duplicates", "reordered"):
            self.assertEqual(summary[zero], 0, zero)
        incarnations, sessions = self.reported([client])
        self.assertEqual(len(sessions), 200)
        verdict = judge(incarnations, sessions)
        self.assertEqual(verdict.problems, [])
        self.assertEqual((verdict.incarnations, verdict.unread), (200, 0))
        self.assertEqual(sum(line["sent_last"] for line in sessions), summary["received"])
        self.assertEqual(sum(line["received_last"] for line in sessions), summary["sent"])
        self.assertGreater(summary["p99_us"], 0)
        self.assertGreaterEqual(summary["max_us"], summary["p50_us"])

    def test_messages_of_many_bytes(self):
        self.backends["large"] = self.start(Backend, "large", "--rate", 20, "--size", 65536)
        client = self.start_client_at(self.backends["large"].address, "--sessions", 5, "--rate", 20,
                                      "--size", 3000)
        client.wait_until_open()
        wait_for("traffic", lambda: client.summary()["received"] > 20)
        client.finish()
        self.assertEqual(judge(*self.reported([client])).problems, [])

    def test_new_sessions_at_a_rate(self):
        address = self.start_backends(["one"])["one"]
        client = self.start_client_at(address, "--connects-per-second", 300, "--seconds", 1)
        summary = json.loads(client.tool.line(20))
        self.assertAlmostEqual(summary["started"], 300, delta=30)
        self.assertEqual(summary["ok"], summary["started"])
        self.assertEqual(summary["failures"], {})

    def test_a_backend_on_demand_and_at_its_end_tells_of_open_sessions(self):
        address = self.start_backends(["one"], "--rate", 20)["one"]
        client = self.start_client_at(address, "--sessions", 3, "--policy", "fixed:60000")
        client.wait_until_open()
        backend = self.backends["one"]
        backend.tool.process.send_signal(10)  # SIGUSR1
        wait_for("three lines", lambda: len(backend.sessions()) == 3)
        self.assertEqual({line["ended"] for line in backend.sessions()}, {"open"})
        backend.stop()
        self.assertEqual([line["ended"] for line in backend.sessions()[3:]], ["exit"] * 3)
        wait_for("the cut", lambda: client.summary()["closes"] == {"1006": 3})

    def test_a_backend_takes_its_port_again(self):
        address = self.start_backends(["one"], "--rate", 20)["one"]
        client = self.start_client_at(address, "--sessions", 20, "--policy", "fixed:50")
        client.wait_until_open()
        for end in (self.backends["one"].kill, self.backends["one"].stop):
            before = client.summary()["incarnations"]
            end()
            self.backends["one"].start()
            self.assertEqual(self.backends["one"].address, address)
            wait_for("all to be back", lambda: client.summary()["open"] == 20)
            self.assertEqual(client.summary()["incarnations"], before + 20)
        self.assertEqual(sum(client.finish()["reconnects"]), 40)

    def test_policies_wait_as_they_say(self):
        for policy, least, most in (("immediate", 0, 0.25), ("fixed:300", 0.3, 0.55),
                                    ("exponential:400,400", 0, 0.65)):
            with self.subTest(policy):
                backend = self.start(Backend, "b" + policy[0], "--rate", 20)
                client = self.start_client_at(backend.address, "--sessions", 40, "--policy", policy,
                                              name=policy[:4])
                client.wait_until_open()
                backend.kill()
                backend.start()
                wait_for("all to be back", lambda: client.summary()["incarnations"] == 40
                         and client.summary()["open"] == 40)
                client.finish()
                ends, begins = {}, {}
                for line in client.incarnations():
                    if line["n"] == 1:
                        ends[line["uid"]] = line["ended_at"]
                    elif line["n"] == 2:
                        begins[line["uid"]] = line["started_at"]
                waits = [begins[uid] - ended for uid, ended in ends.items()]
                self.assertEqual(len(waits), 40)
                self.assertGreaterEqual(min(waits), least)
                self.assertLess(max(waits), most)
                if policy.startswith("exponential"):
                    self.assertGreater(max(waits) - min(waits), 0.1)

    def test_jitter_comes_behind_what_a_refusal_asks_for(self):
        answers = [b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n",
                   b"HTTP/1.1 503 Service Unavailable\r\n\r\n"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)
            client = self.start_client_at("127.0.0.1:%d" % server.getsockname()[1],
                                          "--sessions", 1, "--policy", "jitter:200,300")
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)
            server.accept()[0].close()
            client.summary()
            first, second = client.incarnations()[:2]
            third = wait_for("the third to end", lambda: (client.summary(),
                                                          client.incarnations()[2:])[1])[0]
        self.assertEqual((first["status"], second["status"]), (503, 503))
        for wait, least in ((second["started_at"] - first["ended_at"], 1.2),
                            (third["started_at"] - second["ended_at"], 0.2)):
            self.assertGreaterEqual(wait, least)
            self.assertLess(wait, least + 0.4)

    def test_a_backend_that_cuts_all_goes_on(self):
        backend = self.start(Backend, "cut")
        client = self.start_client_at(backend.address, "--sessions", 20, "--policy", "immediate")
        client.wait_until_open()
        backend.cut_all()
        wait_for("all to be back", lambda: client.summary()["incarnations"] == 20
                 and client.summary()["open"] == 20)
        self.assertEqual({line["ended"] for line in client.incarnations()}, {"reset"})
        client.finish()
        lines = wait_for("all lines", lambda: (backend.sessions()[39:] and backend.sessions()))
        self.assertEqual([line["ended"] for line in lines], ["cut"] * 20 + ["close"] * 20)
        self.assertLess(max(line["asked_at"] for line in lines[:20]),
                        min(line["asked_at"] for line in lines[20:]))

    def test_what_fails_before_the_101_is_told_apart(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent_port = silent.getsockname()[1]
            with socket.create_server(("127.0.0.1", 0)) as gone:
                gone_port = gone.getsockname()[1]
            for kind, port in (("timeout", silent_port), ("refused", gone_port)):
                with self.subTest(kind):
                    client = self.start_client_at(f"127.0.0.1:{port}", "--sessions", 1,
                                                  "--connect-timeout", 200, name=kind)
                    wait_for("a failure", lambda c=client: c.summary()["failures"].get(kind))
                    self.assertEqual(set(client.finish()["failures"]) - {"abandoned"}, {kind})
        answers = {"status": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                   "bad": b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: no\r\n\r\n",
                   "fin": b"HTTP/1.1 101 Switch"}
        for kind, answer in answers.items():
            with self.subTest(kind):
                one = self.against(lambda peer: None, answer=answer)
                self.assertEqual(one["failure"], kind)
                if kind == "status":
                    self.assertEqual(one["status"], 503)
        with self.subTest("reset"):
            one = self.against(lambda peer: close_with_reset(peer.connection), answer=b"HTTP/1.1 1")
            self.assertEqual(one["failure"], "reset")

    def test_a_command_line_that_means_nothing(self):
        for words in (["--connect", "here"], ["--connect", "127.0.0.1:1", "--policy", "never"],
                      ["--sessions", "1"], ["--connect", "127.0.0.1:1", "--sing", "1"],
                      ["--connect", "127.0.0.1:1", "--size", "31"]):
            with self.subTest(words=words):
                done = subprocess.run([TOOLS / "deploy_client", *words], capture_output=True,
                                      text=True, check=False, timeout=10)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.splitlines()), 1)


class WhatTheClientFinds(ToolsCase):
    def test_a_close_in_order_is_none_of_it(self):
        answers = []

        def act(peer):
            peer.say(1, 2, 3)
            answers.append(peer.close(1012))
            peer.connection.recv(1)
        one = self.against(act)
        self.assertEqual((one["close_code"], one["by"], one["ended"], one["clean"], one["torn"]),
                         (1012, "peer", "fin", True, False))
        self.assertEqual((one["received_last"], one["gaps"], one["duplicates"]), (3, 0, 0))
        self.assertNotIn("violation", one)
        self.assertEqual(answers, [struct.pack(">H", 1012)])
        self.assertEqual(self.final["closes"], {"1012": 1})

    def test_an_end_without_a_close(self):
        for how in ("fin", "reset"):
            with self.subTest(how):
                def act(peer, how=how):
                    peer.say(1)
                    if how == "reset":
                        close_with_reset(peer.connection)
                one = self.against(act)
                self.assertEqual((one["close_code"], one["ended"], one["torn"], one["clean"]),
                                 (1006, how, False, False))

    def test_an_end_inside_a_frame(self):
        for size in (1, 2, 20, 33):
            with self.subTest(size=size):
                def act(peer, size=size):
                    peer.connection.sendall(peer.numbered(1) + peer.numbered(2)[:size])
                one = self.against(act)
                self.assertTrue(one["torn"])
                self.assertEqual((one["close_code"], one["received_last"]), (1006, 1))
                self.assertEqual(self.final["torn"], 1)

    def test_numbers_that_are_not_in_order(self):
        for numbers, wanted, fault in (((1, 2, 4), (1, 0, 0), "4 after 2"),
                                       ((2, 3), (1, 0, 0), "2 after 0"),
                                       ((1, 2, 2), (0, 1, 0), "2 after 2"),
                                       ((1, 3, 2), (0, 0, 1), "3 after 1"),
                                       ((1, 9, 2, 2), (6, 1, 1), "9 after 1"),
                                       ((1, 2, 100, 2), (97, 1, 0), "100 after 2")):
            with self.subTest(numbers=numbers):
                def act(peer, numbers=numbers):
                    peer.say(*numbers)
                    peer.close()
                    peer.connection.recv(1)
                one = self.against(act)
                self.assertEqual((one["gaps"], one["duplicates"], one["reordered"]), wanted)
                self.assertEqual(one["fault"], fault)
                self.assertEqual(len(judge([one], []).problems), 1 + sum(map(bool, wanted)))

    def test_broken_rules(self):
        close = frame(CLOSE, struct.pack(">H", 1012))
        cases = {
            "bytes behind the CLOSE": lambda p: close + p.numbered(2),
            "a reserved bit is set": lambda p: p.numbered(2, first=0xC2),
            "a reserved opcode": lambda p: p.numbered(2, first=0x83),
            "a masked frame": lambda p: bytes([BINARY, 0x80 | 32]) + bytes(36),
            "a text message, which nobody sent": lambda p: frame(TEXT, b"hello"),
            "a continuation without a message": lambda p: frame(CONTINUATION, b"x"),
            "a message inside another": lambda p: p.numbered(2, first=0x02) + p.numbered(3),
            "a control frame in fragments": lambda p: frame(0x09, b""),
            "a control frame of more than 125 bytes":
                lambda p: bytes([PING, 126, 0, 126]) + bytes(126),
            "a length in more bytes than it needs":
                lambda p: bytes([BINARY, 126, 0, 32]) + p.numbered(2)[2:],
            "a message longer than any that was sent":
                lambda p: struct.pack(">BBQ", BINARY, 127, 1 << 40),
            "a message that nobody sent": lambda p: frame(BINARY, b"too short"),
            "a message of another session": lambda p: p.numbered(2, uid=4711),
            "a message with other bytes than were sent":
                lambda p: frame(BINARY, p.numbered(2)[2:] + b"\xff"),
            "a CLOSE whose code may not be sent": lambda p: frame(CLOSE, struct.pack(">H", 1006)),
        }
        for rule, make in cases.items():
            for dribble in (False, True):
                with self.subTest(rule, dribble=dribble):
                    def act(peer, make=make, dribble=dribble):
                        peer.say(1)
                        data = make(peer)
                        for at in range(0, len(data), 1 if dribble else len(data)):
                            peer.connection.sendall(data[at:at + (1 if dribble else len(data))])
                        while read_exactly(peer.connection, 1):
                            pass
                    one = self.against(act)
                    self.assertEqual(one.get("violation"), rule)
                    self.assertEqual(one["ended"], "violation")
                    self.assertEqual(one["received_last"], 1)
                    self.assertEqual(self.final["violations"], {rule: 1})
                    self.assertIn(rule, judge([one], []).problems[0])

    def test_a_close_inside_a_frame(self):
        # What a proxy does that knows nothing of frames: its CLOSE becomes payload of the frame
        # that was under way, and what follows is no header.
        def act(peer):
            half = peer.numbered(1)[:20]
            peer.connection.sendall(half + frame(CLOSE, struct.pack(">H", 1012) + b"going away")
                                    + bytes(14))
            peer.connection.recv(1)
        one = self.against(act)
        self.assertIn("violation", one)
        self.assertEqual(one["close_code"], 1006)

    def test_a_close_inside_a_frame_at_its_very_end(self):
        def act(peer):
            peer.connection.sendall(peer.numbered(1)[:-4] + frame(CLOSE, struct.pack(">H", 1012)))
        one = self.against(act)
        self.assertEqual(one["close_code"], 1006)
        self.assertEqual(one["ended"], "fin")

    def test_fragments_and_pings_are_none_of_it(self):
        got = []

        def act(peer):
            whole = peer.numbered(1)[2:]
            peer.connection.sendall(frame(0x02, whole[:10]) + frame(PING, b"there?")
                                    + frame(0x00, b"") + frame(CONTINUATION, whole[10:]))
            got.append(read_frame(peer.connection))
            peer.close()
            peer.connection.recv(1)
        one = self.against(act)
        self.assertNotIn("violation", one)
        self.assertEqual((one["received_last"], one["clean"]), (1, True))
        self.assertEqual(got, [(0x8A, b"there?")])

    def test_a_server_that_does_not_end_behind_its_close(self):
        def act(peer):
            peer.connection.sendall(frame(CLOSE, struct.pack(">H", 1012)))
            while peer.connection.recv(100):
                pass
        one = self.against(act, "--close-timeout", 300)
        self.assertEqual((one["close_code"], one["ended"], one["clean"]), (1012, "timeout", False))

    def test_its_messages_end_at_the_close(self):
        seen = []

        def act(peer):
            for _ in range(5):
                seen.append(read_frame(peer.connection))
            peer.connection.sendall(frame(CLOSE, struct.pack(">H", 1001)))
            while True:
                seen.append(read_frame(peer.connection))
        one = self.against(act, "--rate", 200, "--close-timeout", 300)
        *messages, (first, payload) = seen
        self.assertEqual((first, payload), (CLOSE, struct.pack(">H", 1001)))
        numbers = [NUMBERED.unpack(message)[4] for _, message in messages]
        self.assertEqual(numbers, list(range(1, len(messages) + 1)))
        self.assertEqual(one["sent_last"], len(messages))


class WhatTheVerdictFinds(unittest.TestCase):
    def client(self, **changes):
        return {"uid": 1, "n": 1, "close_code": 1012, "by": "peer", "ended": "fin", "clean": True,
                "torn": False, "sent_last": 9, "received_last": 7, "gaps": 0, "duplicates": 0,
                "reordered": 0, **changes}

    def backend(self, **changes):
        return {"uid": 1, "n": 1, "backend": "b", "sent_last": 7, "received_last": 8,
                "received_count": 8, "gaps": 0, "duplicates": 0, "reordered": 0, "close_code": 1001,
                "ended": "close", **changes}

    def test_what_fits_is_no_problem(self):
        verdict = judge([self.client()], [self.backend()])
        self.assertEqual((verdict.problems, dict(verdict.codes), verdict.unread),
                         ([], {1012: 1}, 1))
        self.assertEqual(judge([self.client(by="client", close_code=1000)],
                               [self.backend(received_last=9, received_count=9)]).problems, [])

    def test_what_does_not_fit(self):
        cases = (
            (self.client(received_last=6), [self.backend()], "sent 7, the client got 6"),
            (self.client(), [], "no backend tells of it"),
            (self.client(), [self.backend(), self.backend()], "two backends"),
            (self.client(), [self.backend(received_count=7)], "got 7 of 8"),
            (self.client(), [self.backend(gaps=1)], "1 gaps at b"),
            (self.client(), [self.backend(duplicates=1)], "1 duplicates at b"),
            (self.client(), [self.backend(received_last=10, received_count=10)], "more than"),
            (self.client(), [self.backend(ended="exit")], "b: exit"),
            (self.client(clean=False, ended="reset"), [self.backend()], "ended by reset"),
            (self.client(by="client", close_code=1000), [self.backend()], "the client sent 9"),
            (self.client(by="client", close_code=1006, ended="timeout"), [], "not answered"),
        )
        for one, lines, wanted in cases:
            with self.subTest(wanted):
                [problem] = judge([one], lines).problems
                self.assertIn(wanted, problem)

    def test_peaks(self):
        self.assertEqual(binned([5.0, 5.05, 5.31]), [2, 0, 0, 1])
        self.assertEqual(peak_ratio([2, 0, 0, 2]), 2)


if __name__ == "__main__":
    unittest.main()
