#!/usr/bin/python3
"""A new process of Sluice takes the listeners over, again and again, while clients come by the
hundred each second: none is refused, reset or left without its upgrade; those who have been there
for long are told 1012, one after the other.
"""

import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import LabCase, binned, configuration, peak_ratio, sized, wait_for  # noqa: E402

TAKEOVERS = sized(8, 50)
CONNECTS_PER_SECOND = sized(300, 500)
SESSIONS = 200  # that stay
RATE = 5
WINDOW = 1  # second
HIGHEST_PEAK = 3


class TakeoverTest(LabCase):
    def setUp(self):
        super().setUp()
        self.backends_at = self.start_backends(["one", "two"], "--rate", RATE)
        # By itself, since the path of a socket may have 107 bytes.
        folder = tempfile.TemporaryDirectory(prefix="sl-")
        self.addCleanup(folder.cleanup)
        self.socket = f"{folder.name}/takeover.sock"
        self.start_sluice(self.text(2))

    def text(self, workers):
        return configuration({"app": self.backends_at}, workers=workers,
                             server=f'takeover_socket = "{self.socket}"',
                             tables=f'[drain]\nwindow = "{WINDOW}s"\ngrace = "5s"\n')

    def start_residents(self, policy):
        client = self.start_client("residents", "--sessions", SESSIONS, "--rate", RATE,
                                   "--policy", policy)
        client.wait_until_open()
        return client

    def test_nobody_is_turned_away(self):
        residents = self.start_residents("exponential:50,200")
        newcomers = self.start_client("newcomers", "--connects-per-second", CONNECTS_PER_SECOND,
                                      "--first-uid", 100_000)
        wait_for("newcomers", lambda: newcomers.summary()["ok"] > 0)
        drains = []
        for number in range(TAKEOVERS):
            self.sluice.configure(self.text(2 if number % 4 < 2 else 3))
            address = self.sluice.listeners["plain"]
            began = time.monotonic()
            old = (self.sluice.takeover_by_signal() if number % 2 == 0
                   else self.sluice.takeover_by_start())
            self.assertEqual(self.sluice.listeners["plain"], address)
            self.sluice.wait_until_gone(old)
            drains.append((began, time.monotonic()))
            wait_for("the residents to be back", lambda: residents.summary()["open"] == SESSIONS)
            through = newcomers.summary()["ok"]
            wait_for("newcomers", lambda: newcomers.summary()["ok"] > through)
        summary = newcomers.finish()
        self.assertEqual(summary["failures"], {}, summary["statuses"])
        self.assertEqual((summary["violations"], summary["broken"], summary["late"]), ({}, 0, 0))
        self.assertEqual(summary["ok"] + summary["restarted"], summary["started"])
        self.assertLess(summary["restarted"], summary["started"] / 50)
        self.assertLessEqual(set(summary["closes"]), {"1012"})
        self.assertEqual(residents.finish()["failures"], {})
        verdict = self.assert_nothing_lost(residents)
        self.assertEqual(set(verdict.codes), {1012})
        self.assertGreaterEqual(verdict.codes[1012], TAKEOVERS * SESSIONS)
        closes = [one["close_at"] for one in residents.incarnations() if one["by"] == "peer"]
        for began, ended in drains:
            bins = binned([at for at in closes if began <= at <= ended])
            self.assertEqual(sum(bins), SESSIONS)
            self.assertGreaterEqual(len(bins), 0.8 * WINDOW * 10)
            self.assertLess(peak_ratio(bins), HIGHEST_PEAK, bins)

    def test_a_successor_that_cannot_start_harms_nobody(self):
        residents = self.start_residents("fixed:60000")
        pid = self.sluice.pid
        self.sluice.configure(self.text(2).replace('pool = "app"', 'pool = "nowhere"'))
        successor = self.sluice.start_successor()
        self.sluice.wait_until_gone(successor)
        self.assertEqual(self.sluice.status_of(successor), 78)
        self.sluice.configure(self.text(2))
        before = residents.summary()["received"]
        wait_for("more traffic",
                 lambda: residents.summary()["received"] > before + 2 * RATE * SESSIONS)
        self.assertFalse(self.sluice.is_gone(pid))
        self.assertEqual(residents.summary()["closes"], {})
        # And the next one that can, does.
        old = self.sluice.takeover_by_start()
        self.assertEqual(old, pid)
        self.sluice.wait_until_gone(old)
        self.assertEqual(self.sluice.status_of(old), 0)
        wait_for("the closes", lambda: residents.summary()["closes"] == {"1012": SESSIONS})
        residents.finish()
        self.assert_nothing_lost(residents)


if __name__ == "__main__":
    unittest.main()
