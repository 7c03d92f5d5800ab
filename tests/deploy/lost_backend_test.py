#!/usr/bin/python3
"""A backend goes without a word, in each of the ways that there are. Its clients are told 1012, a
tenth of a second after there was something to tell it by.
"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from chaos import Chaos  # noqa: E402
from lab import CUT, LabCase, configuration, wait_for  # noqa: E402

SESSIONS = 20
RATE = 20
FRAME = 2 + 32  # bytes of each message of a backend
LONGEST = 0.1  # seconds from the evidence to the CLOSE at the client
CLOCKS = 0.02  # the two ends note the time a little apart


class LostBackendCase(LabCase):
    def start_all(self, rate, **options):
        [address] = self.start_backends(["one"], "--rate", rate).values()
        host, port = address.split(":")
        self.chaos = Chaos((host, int(port)))
        self.addCleanup(self.chaos.close)
        self.start_sluice(configuration({"app": {"one": self.chaos.address}}, **options))
        self.client = self.start_client("client", "--sessions", SESSIONS,
                                        "--rate", rate, "--policy", "fixed:60000")
        self.client.wait_until_open()
        self.links = {link.identity: link for link in self.chaos.open_links()}
        self.assertEqual(len(self.links), SESSIONS)

    def ended(self, code):
        """(incarnation, link) of each session, once all have ended with that code."""
        wait_for("the end of all sessions",
                 lambda: sum(self.client.summary()["closes"].values()) == SESSIONS)
        incarnations = self.client.incarnations()
        self.assertEqual({one["close_code"] for one in incarnations}, {code})
        for one in incarnations:
            self.assertNotIn("violation", one)
            self.assertEqual(one["gaps"] + one["duplicates"] + one["reordered"], 0)
        return [(one, self.links[one["uid"], one["n"]]) for one in incarnations]

    def setUp(self):
        super().setUp()
        self.delays = []

    def tearDown(self):
        if self.delays:
            self.note(f"told after {min(self.delays) * 1e3:.1f} to {max(self.delays) * 1e3:.1f} ms")

    def assert_soon(self, evidence, told):
        self.delays.append(told - evidence)
        self.assertGreater(told - evidence, -CLOCKS)
        self.assertLess(told - evidence, LONGEST)

    def torn(self):
        return self.sluice.metric("sluice_torn_total", reason="backend_lost")


class CutTest(LostBackendCase):
    def setUp(self):
        super().setUp()
        self.start_all(RATE)
        wait_for("traffic", lambda: self.client.summary()["received"] > 2 * SESSIONS)

    def cut_in_frame(self, offset, how):
        """Cuts each link so many bytes behind the begin of a frame; how many frames are through."""
        def arrange():
            wanted = {}
            for identity, link in self.links.items():
                way = link.to_client
                wanted[identity] = (way.forwarded - link.head_size) // FRAME + 2
                way.cut_with = how
                way.cut_at = link.head_size + wanted[identity] * FRAME + offset
            return wanted
        return self.chaos.call(arrange)

    def told_of_a_cut(self, how):
        self.chaos.cut_all(how)
        for one, link in self.ended(1012):
            self.assertTrue(one["clean"])
            self.assertFalse(one["torn"])
            self.assert_soon(link.cut_at, one["close_at"])
        self.assertEqual(self.torn(), 0)

    def test_end_of_stream_without_a_close(self):
        self.told_of_a_cut("fin")

    def test_a_reset(self):
        self.told_of_a_cut("rst")

    def test_an_end_inside_the_header_of_a_frame(self):
        for_each = self.cut_in_frame(1, "fin")
        for one, link in self.ended(1012):
            self.assertEqual(one["received_last"], for_each[one["uid"], one["n"]])
            self.assertTrue(one["clean"])
            self.assert_soon(link.cut_at, one["close_at"])
        self.assertEqual(self.torn(), 0)

    def test_an_end_inside_the_payload_of_a_frame(self):
        # Half of the frame is at the client already: there is no place for a CLOSE.
        for_each = self.cut_in_frame(10, "fin")
        for one, link in self.ended(CUT):
            self.assertEqual(one["received_last"], for_each[one["uid"], one["n"]])
            self.assertTrue(one["torn"])
            self.assertEqual(one["ended"], "fin")
            self.assert_soon(link.cut_at, one["ended_at"])
        self.assertEqual(self.torn(), SESSIONS)

    def test_a_reset_inside_the_payload_of_a_frame(self):
        # RST may overtake bytes: some sessions are cut at a boundary then, and are told so.
        self.cut_in_frame(10, "rst")
        wait_for("the end of all sessions",
                 lambda: sum(self.client.summary()["closes"].values()) == SESSIONS)
        incarnations = self.client.incarnations()
        for one in incarnations:
            self.assertNotIn("violation", one)
            self.assertEqual(one["torn"], one["close_code"] == CUT)
            self.assertIn(one["close_code"], (CUT, 1012))
            self.assert_soon(self.links[one["uid"], one["n"]].cut_at,
                             one["close_at"] or one["ended_at"])
        self.assertEqual(self.torn(), sum(one["torn"] for one in incarnations))


class BlackholeTest(LostBackendCase):
    TIMEOUT = 0.5

    def test_a_backend_that_does_not_answer_any_more(self):
        # Nobody says anything: what the chaos proxy swallows is the first ping that is not
        # answered, or its answer.
        self.start_all(0, route='heartbeat.interval = "500ms"\nheartbeat.timeout = "500ms"')

        def arrange():
            for link in self.links.values():
                link.to_backend.blackhole = link.to_client.blackhole = True
        self.chaos.call(arrange)
        for one, link in self.ended(1012):
            first = min(way.first_swallowed_at for way in (link.to_backend, link.to_client)
                        if way.first_swallowed_at)
            self.assert_soon(first + self.TIMEOUT, one["close_at"])
            self.assertFalse(one["torn"])


if __name__ == "__main__":
    unittest.main()
