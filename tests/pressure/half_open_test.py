#!/usr/bin/python3
"""Clients whose network is gone: they say nothing more, not even that they are gone. Their
sessions are reaped within two heartbeats, and the backend is told 1001. The clients are in a
network namespace of their own, which needs root and iproute2; without them this fails.
"""

import os
import subprocess
import time
import unittest

from pressure import PressureCase, configuration, sized, wait_for

SESSIONS = sized(50, 500)
INTERVAL = sized(1, 2)  # seconds, also for the answer
GRAIN = 0.5
# TEST-NET-2 of RFC 5737: nobody's addresses.
HERE, THERE, BITS = "198.51.100.1", "198.51.100.2", 30


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"ip {' '.join(words)}: {done.stderr.strip()} (network namespaces "
                             "need root, and a container that may make them)")


class HalfOpenTest(PressureCase):
    def setUp(self):
        super().setUp()
        self.namespace = f"sluice-{os.getpid()}"
        here, there = f"slh{os.getpid()}", f"slt{os.getpid()}"
        ip("netns", "add", self.namespace)
        self.addCleanup(ip, "netns", "delete", self.namespace)  # and both ends of the wire with it
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.namespace)
        ip("address", "add", f"{HERE}/{BITS}", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", self.namespace, "address", "add", f"{THERE}/{BITS}", "dev", there)
        ip("-n", self.namespace, "link", "set", there, "up")
        self.wire = there

    def test_clients_whose_network_is_gone(self):
        self.start_sluice(configuration(
            {"app": self.start_backends(["one"])}, address=f"{HERE}:0",
            server='close_timeout = "1s"',
            route=f'heartbeat.interval = "{INTERVAL}s"\nheartbeat.timeout = "{INTERVAL}s"'))
        client = self.start_client("client", "--sessions", SESSIONS, "--ramp", 1000,
                                   prefix=("ip", "netns", "exec", self.namespace))
        self.assertEqual(client.wait_until_open(), SESSIONS)
        descriptors = self.sluice.descriptors()
        cut_at = time.monotonic()
        ip("-n", self.namespace, "link", "set", self.wire, "down")
        lines = wait_for("the end of all sessions at the backend", self.all_ended, 30)
        self.figure("reaped after", time.monotonic() - cut_at, 2 * INTERVAL + GRAIN, " s")
        self.assertEqual({line["close_code"] for line in lines}, {1001})
        wait_for("their descriptors",
                 lambda: self.sluice.descriptors() <= descriptors - 2 * SESSIONS)
        self.assertEqual(self.sluice.metric("sluice_pings_total", side="client",
                                            result="timeout"), SESSIONS)

    def all_ended(self):
        lines = [line for line in self.sessions() if line["ended"] != "open"]
        return lines if len(lines) == SESSIONS else None


if __name__ == "__main__":
    unittest.main()
