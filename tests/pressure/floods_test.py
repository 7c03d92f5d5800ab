#!/usr/bin/python3
"""One session that asks for as much work as it can: messages one byte at a time. It gets no more of
the process than it may, and others are served as before.
"""

import unittest

from pressure import PressureCase, configuration, sized

BYTES = sized(100_000, 1_000_000)
CAP = 16384  # limits.max_frames_per_message
TIMES_THE_SENDER = 100


class FloodCase(PressureCase):
    def setUp(self):
        super().setUp()
        # The flood has a backend of its own: what it does to that one is not the question.
        self.start_sluice(configuration({"app": self.start_backends(["calm"]),
                                         "flood": self.start_backends(["flooded"])},
                                        routes={"/": "app", "/flood": "flood"}))
        self.start_probe("--sessions", 20, "--rate", 50, "--first-uid", 1000)


class OneByteTest(FloodCase):
    def flood_of(self, kind, wanted):
        """What the sender says of it; `wanted` is the code that it is closed with."""
        memory, cpu = self.sluice.memory_kib(), self.sluice.cpu_seconds()
        flood = self.start_flood(kind, BYTES)
        growth = self.growth_until(flood.is_over, memory)
        said = flood.finish()
        cpu = self.sluice.cpu_seconds() - cpu
        self.note(f"{said}, CPU of Sluice {cpu:.2f} s")
        self.figure(f"{kind}: memory for {said['bytes']} bytes", growth, 2 * said["bytes"] / 1024,
                    " KiB")
        self.figure(f"{kind}: CPU of Sluice over that of the sender",
                    cpu / max(said["cpu_seconds"], 0.01), TIMES_THE_SENDER)
        self.assertEqual(said["close_code"], wanted, said)
        window = self.probe.window()
        self.assertEqual((window["failures"], window["closes"]), ({}, {}))
        return said

    def assert_arrived(self, said):
        self.assertGreaterEqual(said["sent"], BYTES)
        [line] = [line for line in self.reported([])[1] if line["uid"] == 1]
        self.assertEqual((line["received_count"], line["received_last"], line["gaps"]),
                         (said["messages"], said["messages"], 0))

    def test_fragments_of_one_byte(self):
        self.assert_arrived(self.flood_of("fragments", 1000))

    def test_segments_of_one_byte(self):
        self.assert_arrived(self.flood_of("segments", 1000))

    def test_a_message_without_an_end(self):
        said = self.flood_of("endless", 1008)
        # What is on its way when the CLOSE comes has been sent too.
        self.assertGreaterEqual(said["sent"], CAP)
        self.assertEqual(self.sluice.metric("sluice_protocol_errors_total", side="client"), 1)


if __name__ == "__main__":
    unittest.main()
