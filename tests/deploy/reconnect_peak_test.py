#!/usr/bin/python3
"""A paced drain does not bring its clients back all at once: with clients that wait a second, no
100 ms sees more than three times the mean of reconnects.
"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import LabCase, configuration, peak_ratio, sized, wait_for  # noqa: E402

SESSIONS = sized(1000, 5000)
SECONDS = sized(4, 10)  # of the window
BINS_PER_SECOND = 10
HIGHEST_PEAK = 3


class ReconnectPeakTest(LabCase):
    def start_client_and_wait(self):
        client = self.start_client("client", "--sessions", SESSIONS, "--ramp", 2000,
                                   "--policy", "fixed:1000")
        self.assertEqual(client.wait_until_open(), SESSIONS)
        return client

    def assert_spread(self, summary):
        bins = summary["reconnects"]
        self.note(f"peak of {max(bins)} in 100 ms, {peak_ratio(bins):.2f} times the mean")
        self.assertEqual(sum(bins), SESSIONS)
        self.assertGreaterEqual(len(bins), 0.9 * SECONDS * BINS_PER_SECOND)
        self.assertLess(len(bins), 1.5 * SECONDS * BINS_PER_SECOND)
        self.assertLess(peak_ratio(bins), HIGHEST_PEAK, bins)

    def test_a_drained_backend(self):
        backends = self.start_backends(["old", "new"])
        sluice = self.start_sluice(configuration({"app": backends}))
        sluice.drain("app", "new", window="0s")
        sluice.wait_until_drained("app", "new")
        client = self.start_client_and_wait()
        sluice.undrain("app", "new")
        sluice.drain("app", "old", window=f"{SECONDS}s")
        state = sluice.wait_until_drained("app", "old")
        self.assertEqual((state["drain"]["total"], state["drain"]["forced"]), (SESSIONS, 0))
        wait_for("all sessions to be back", lambda: client.summary()["open"] == SESSIONS)
        self.assert_spread(client.summary())
        self.assertEqual(client.finish()["failures"], {})
        verdict = self.assert_nothing_lost(client)
        self.assertEqual(dict(verdict.codes), {1012: SESSIONS})

    def test_a_stopped_sluice(self):
        backends = self.start_backends(["one", "two"])
        sluice = self.start_sluice(configuration(
            {"app": backends}, tables=f'[drain]\nwindow = "{SECONDS}s"\n'))
        client = self.start_client_and_wait()
        sluice.terminate()
        wait_for("everybody to try again",
                 lambda: sum(client.summary()["reconnects"]) == SESSIONS, 3 * SECONDS + 10)
        self.assert_spread(client.finish())
        verdict = self.assert_nothing_lost(client)
        self.assertEqual(dict(verdict.codes), {1012: SESSIONS})


if __name__ == "__main__":
    unittest.main()
