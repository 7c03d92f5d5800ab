#!/usr/bin/python3
"""One session that asks for as much work as it can: pings by the hundred thousand, and messages one
byte at a time. It gets no more of the process than it may, and others are served as before.
"""

import unittest

from pressure import PressureCase, configuration, sized

PINGS_PER_SECOND = 100_000
BYTES = sized(100_000, 1_000_000)
CAP = 16384  # limits.max_frames_per_message
OUT_BUFFER_KIB = 64
READ_KIB = 128  # what may come on top of half of a full buffer
TIMES_THE_SENDER = 100


class FloodCase(PressureCase):
    def setUp(self):
        super().setUp()
        # The flood has a backend of its own: what it does to that one is not the question.
        self.start_sluice(configuration({"app": self.start_backends(["calm"]),
                                         "flood": self.start_backends(["flooded"])},
                                        routes={"/": "app", "/flood": "flood"}))
        self.start_probe("--sessions", 20, "--rate", 50, "--first-uid", 1000)


class PingFloodTest(FloodCase):
    def flood_for(self, *options):
        memory, out, growth = self.sluice.memory_kib(), 0, 0

        def look():
            nonlocal out, growth
            out = max(out, self.sluice.metric("sluice_out_buffer_bytes"))
            growth = max(growth, self.sluice.memory_kib() - memory)
        before = self.measure(look)  # that looking costs something too
        seconds = sized(2, 20)
        flood = self.start_flood("pings", PINGS_PER_SECOND * seconds, "--rate", PINGS_PER_SECOND,
                                 *options)
        under = self.measure(look)
        said = flood.finish()
        self.note(str(said))
        self.figure("memory", growth, 4096, " KiB")
        self.figure("waiting for it and its backend", out / 1024,
                    2 * (OUT_BUFFER_KIB / 2 + READ_KIB), " KiB")
        self.assert_unharmed(before, under, 1.5, 1)
        return said

    def test_pings_of_a_client_that_reads_the_answers(self):
        said = self.flood_for()
        self.assertEqual(said["close_code"], 1008)
        self.assertLess(said["sent"], PINGS_PER_SECOND)
        self.assert_closed_once()

    def test_pings_of_a_client_that_reads_nothing(self):
        self.flood_for("--deaf", 1)
        self.assert_closed_once()  # whether it has read that or was reset first

    def assert_closed_once(self):
        self.assertEqual(self.sluice.metric("sluice_closes_total", code="1008", by="sluice"), 1)


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
