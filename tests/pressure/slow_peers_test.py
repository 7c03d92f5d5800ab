#!/usr/bin/python3
"""Clients that are slow on purpose: heads byte by byte, handshakes that stop half way, and readers
that do not read. They cost little memory, are gone when their time is over, and nobody else waits.
"""

import unittest

from pressure import PressureCase, configuration, sized, wait_for

from lab import make_certificate

MIB = 1024  # KiB


class SlowStartersTest(PressureCase):
    """Connections that never get to an upgrade."""

    TIMEOUT = sized(1.5, 10)  # seconds: header_timeout, and tls_timeout
    UPGRADES = sized(50, 100)  # a second, of others
    LONGEST_UPGRADE_MS = sized(250, 50)

    def assert_reaped(self, crowd, probe, growth_kib):
        before = self.sluice.memory_kib()
        probe.window()
        connected = crowd.wait_until_connected()
        self.assertEqual(connected["ended"], {})
        growth = self.growth_until(crowd.is_gone, before)
        others = probe.window()
        ended = crowd.report()
        self.assertEqual(sum(ended["ended"].values()), crowd.size)
        self.figure(f"memory of {crowd.size} connections", growth / MIB, growth_kib / MIB, " MiB")
        self.figure("the first one lives shorter than its time by",
                    self.TIMEOUT - ended["shortest"], 1, " s")
        self.figure("the last one lives longer than its time by",
                    ended["longest"] - self.TIMEOUT, 1, " s")
        self.assertGreater(others["upgrades"], self.UPGRADES)
        self.assertEqual((others["failures"], others["closes"]), ({}, {}))
        self.figure(f"p99 of {others['upgrades']} upgrades of others", others["upgrade_p99_ms"],
                    self.LONGEST_UPGRADE_MS, " ms")
        return ended

    def test_heads_byte_by_byte(self):
        connections = sized(1000, 9000)
        self.start_sluice(configuration({"app": self.start_backends(["one"])},
                                        server=f'header_timeout = "{self.TIMEOUT * 1000:.0f}ms"'))
        probe = self.start_probe("--sessions", 10, "--upgrades", self.UPGRADES)
        crowd = self.start_crowd("slow-head", connections, "--every", sized(750, 5000),
                                 "--ramp", 4000, "--first-uid", 100_000)
        ended = self.assert_reaped(crowd, probe, sized(4, 20) * MIB)
        self.assertEqual(ended["statuses"], {"408": connections})

    def test_half_a_client_hello(self):
        connections = sized(500, 5000)
        self.start_sluice(configuration({"app": self.start_backends(["one"])},
                                        server=f'tls_timeout = "{self.TIMEOUT * 1000:.0f}ms"',
                                        certificate=make_certificate(self.folder, "server")))
        probe = self.start_probe("--sessions", 10, "--upgrades", self.UPGRADES)
        crowd = self.start_crowd("half-hello", connections, "--ramp", 4000, listener="secure")
        ended = self.assert_reaped(crowd, probe, sized(4, 20) * MIB)
        self.assertEqual(ended["statuses"], {})
        self.assertEqual(self.sluice.metric("sluice_tls_handshakes_total", result="timeout"),
                         connections)


class SlowReadersTest(PressureCase):
    READERS = sized(100, 1000)
    MOST_KIB = sized(112, 96)  # of memory for each, and with few what is needed once counts
    RATE = 16  # messages of 64 KiB a second from the backends: 1 MiB

    def test_readers_that_do_not_read(self):
        flood = self.start_backends(["flood"], "--rate", self.RATE, "--size", 65536)
        calm = self.start_backends(["calm"])
        # Who reads nothing answers no ping.
        self.start_sluice(configuration({"calm": calm, "flood": flood},
                                        routes={"/": "calm", "/flood": "flood"},
                                        route='heartbeat.interval = "0s"'))
        probe = self.start_probe("--sessions", 20, "--rate", 50)
        before, memory = self.measure(), self.sluice.memory_kib()
        half = self.READERS // 2
        crowds = [self.start_crowd("slow-reader", half, "--path", "/flood", "--read", read,
                                   "--ramp", 500, "--first-uid", 100_000 * (read + 1))
                  for read in (0, 1024)]
        paused = self.READERS
        growth = self.growth_until(
            lambda: self.sluice.metric("sluice_backpressure_pauses_total") >= paused, memory)
        under = self.measure()
        growth = max(growth, self.sluice.memory_kib() - memory)
        for crowd in crowds:
            report = crowd.report()
            self.assertEqual((report["connected"], report["statuses"]), (half, {"101": half}))
        self.note(f"{self.sluice.metric('sluice_out_buffer_bytes') / 1024 / self.READERS:.1f} KiB "
                  "wait for each reader")
        self.figure("memory of each reader", growth / self.READERS, self.MOST_KIB, " KiB")
        self.assert_unharmed(before, under, 1.5, 1)
        for crowd in crowds:
            crowd.close_all()
        wait_for("the end of the readers",
                 lambda: self.sluice.metric("sluice_sessions_open", pool="flood") == 0)
        self.assertEqual(probe.window()["closes"], {})


if __name__ == "__main__":
    unittest.main()
