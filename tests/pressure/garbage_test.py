#!/usr/bin/python3
"""Connections that send what nobody should: random bytes, requests that stop anywhere or have wrong
bytes in them, upgrades with noise behind. Sluice lives, counts them, and is as large as before.
"""

import contextlib
import os
import random
import unittest

from pressure import PressureCase, configuration, sized, wait_for

CONNECTIONS = sized(500, 1000)
ROUNDS = sized(2, 10)
MOST_GROWTH_KIB = 2048  # after the first round, in which buffers and caches get their size
KINDS = 5  # of garbage; each is a part like the others


class GarbageTest(PressureCase):
    def test_garbage(self):
        seed = int(os.environ.get("SLUICE_PRESSURE_SEED", random.randrange(1 << 32)))
        self.note(f"SLUICE_PRESSURE_SEED={seed}")
        self.start_sluice(configuration(
            {"app": self.start_backends(["one"])},
            server='header_timeout = "1s"\nclose_timeout = "1s"',
            route='heartbeat.interval = "0s"'))
        probe = self.start_probe("--sessions", 10)
        descriptors = self.sluice.descriptors()
        memory = 0
        for number in range(ROUNDS):
            before = [self.sluice.metric(name) for name in self.COUNTED]
            statuses = self.throw(seed + number)["statuses"]
            heads, frames = [self.sluice.metric(name) - count
                             for name, count in zip(self.COUNTED, before)]
            self.note(f"round {number}: {heads:.0f} bad heads, {frames:.0f} bad frames")
            # Those of random bytes alone; and most of what is behind a 101 is no frame.
            self.assertGreaterEqual(heads, CONNECTIONS / KINDS * 0.9)
            self.assertGreaterEqual(frames, statuses["101"] * 0.8)
            wait_for("the descriptors", lambda: self.sluice.descriptors() == descriptors)
            memory = memory or self.sluice.memory_kib()
        self.figure("memory after the last round, beyond that after the first",
                    self.sluice.memory_kib() - memory, MOST_GROWTH_KIB, " KiB")
        window = probe.window()
        self.assertEqual((window["failures"], window["closes"], window["open"]), ({}, {}, 10))

    COUNTED = ["sluice_http_parse_errors_total", "sluice_protocol_errors_total"]

    def throw(self, seed):
        crowd = self.start_crowd("garbage", CONNECTIONS, "--seed", seed, "--first-uid", 100_000)
        # A frame that says it is long may be waited for as long as the client is there.
        with contextlib.suppress(TimeoutError):
            wait_for("the end of most", crowd.is_gone, sized(1.7, 3), 0.1)
        report = crowd.close_all()
        self.note(f"{report['ended']}, {report['statuses']}")
        self.assertEqual(sum(report["ended"].values()), CONNECTIONS)
        self.assertGreaterEqual(report["statuses"]["400"], CONNECTIONS / KINDS * 0.9)
        self.assertGreaterEqual(report["statuses"]["101"], CONNECTIONS / KINDS * 0.5)
        wait_for("the end of the sessions",
                 lambda: self.sluice.metric("sluice_connections_open", side="client") == 10)
        wait_for("the end of the legs",
                 lambda: self.sluice.metric("sluice_connections_open", side="backend") == 10)
        return report


if __name__ == "__main__":
    unittest.main()
