#!/usr/bin/python3
"""Backends are killed again and again: whoever had a session there is told 1012, unless half a
frame has reached the client already, and Sluice counts each of those. What it holds does not grow.
"""

import os
import random
import statistics
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import CUT, LabCase, configuration, judge, sized, wait_for  # noqa: E402

SESSIONS = 300
RATE = 5
PERIOD = sized(2, 5)  # seconds from one kill to the next
SECONDS = 3600 if os.environ.get("SLUICE_DEPLOY_HOUR") == "1" else sized(20, 300)
SAMPLE_SECONDS = 0.25
GROWTH_KIB = 4096
GROWTH_SHARE = 0.1


class BackendKillTest(LabCase):
    def third_medians(self, samples):
        third = len(samples) // 3
        return statistics.median(samples[:third]), statistics.median(samples[-third:])

    def test_backends_are_killed_under_traffic(self):
        seed = random.randrange(1 << 32)
        choose = random.Random(seed)
        # Messages that take more than one write of a busy backend can be torn.
        backends = self.start_backends(["one", "two", "three"], "--rate", RATE, "--size", 16384)
        sluice = self.start_sluice(configuration({"app": backends}))
        client = self.start_client("client", "--sessions", SESSIONS, "--rate", RATE,
                                   "--policy", "fixed:100")
        client.wait_until_open()
        memory, descriptors = [], []
        kills = 0
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            next_kill = time.monotonic() + PERIOD
            victim = self.backends[choose.choice(sorted(self.backends))]
            victim.kill()
            victim.start()
            kills += 1
            wait_for("all sessions to be back", lambda: client.summary()["open"] == SESSIONS)
            while time.monotonic() < next_kill:
                memory.append(sluice.memory_kib())
                descriptors.append(sluice.descriptors())
                time.sleep(SAMPLE_SECONDS)  # the interval of the samples
        torn = sluice.metric("sluice_torn_total", reason="backend_lost")
        summary = client.finish()
        self.assertEqual(summary["failures"], {}, f"seed {seed}")

        verdict = judge(*self.reported([client], may_be_missing=True), may_be_missing=True)
        self.assertEqual(verdict.problems, [], f"seed {seed}\n" + sluice.tail())
        self.assertGreaterEqual(verdict.codes[1012], kills)
        self.assertLessEqual(set(verdict.codes), {1012, CUT})
        self.assertEqual((verdict.torn, verdict.codes[CUT]), (torn, torn), f"seed {seed}")

        self.note(f"{kills} kills, {dict(verdict.codes)}, {verdict.torn:.0f} torn")
        before, after = self.third_medians(memory)
        self.note(f"resident KiB {before:.0f}, then {after:.0f}")
        self.assertLess(after, before * (1 + GROWTH_SHARE) + GROWTH_KIB, memory)
        before, after = self.third_medians(descriptors)
        self.note(f"descriptors {before:.0f}, then {after:.0f}")
        self.assertAlmostEqual(after, before, delta=0.05 * before + 16, msg=descriptors)


if __name__ == "__main__":
    unittest.main()
