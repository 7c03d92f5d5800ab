#!/usr/bin/python3
"""No descriptor is left and clients keep coming: those who have a session notice nothing, the
process does not spin, and the moment some are free it accepts again.
"""

import unittest

from pressure import PressureCase, configuration, sized, wait_for

LIMIT = 256
CLIENTS = 1000
ROUNDS = sized(1, 5)
SECONDS_OF_CPU = sized(1.5, 4)
MOST_CPU = 5  # per cent of a core
LONGEST_MS = 100  # from descriptors that are free to a new session


class DescriptorsTest(PressureCase):
    def setUp(self):
        super().setUp()
        # Those who say nothing keep their descriptors for as long as this takes.
        self.start_sluice(configuration(
            {"app": self.start_backends(["one"])}, server='header_timeout = "120s"',
            tables="[limits]\nmax_connections = 100000\n"),
            prefix=("prlimit", f"--nofile={LIMIT}:{LIMIT}"))
        self.start_probe("--sessions", 20, "--rate", 10)

    def test_a_process_that_is_full(self):
        before = self.measure()
        for number in range(ROUNDS):
            crowd = self.start_crowd("silent", CLIENTS)
            crowd.wait_until_connected()
            wait_for("the last descriptor", lambda: self.sluice.descriptors() >= LIMIT - 1)
            self.figure(f"round {number}: CPU while full, 200 echoes a second included",
                        self.cpu_share(SECONDS_OF_CPU) * 100, MOST_CPU, " %")
            self.assert_unharmed(before, self.measure(), 1.5, 1)
            self.assertGreaterEqual(self.sluice.descriptors(), LIMIT - 1)
            closed_at = crowd.close_all()["at"]
            fresh = self.probe.upgrade()
            self.assertEqual(fresh["failure"], "")
            self.figure(f"round {number}: accepting again after",
                        (fresh["opened_at"] - closed_at) * 1e3, LONGEST_MS, " ms")
            self.assertGreater(self.sluice.metric("sluice_accept_paused_total", reason="emfile"), 0)


if __name__ == "__main__":
    unittest.main()
