#!/usr/bin/python3
"""Thousands of clients lose their backend at the same moment and come back at once. The backend
sees no more of them in a second than it is configured for, all are back soon, and those who have a
session elsewhere notice nothing.
"""

import bisect
import time
import unittest

from pressure import WINDOW, PressureCase, configuration, median, sized, wait_for

CLIENTS = sized(300, 4000)
RATE = sized(250, 500)  # upgrades a second that a backend is given
BURST = sized(50, 100)
SECONDS_TO_RETURN = 30
KEYS = f"handshake_rate = {RATE}\nhandshake_burst = {BURST}\n"
TOLERANCE = sized(1.25, 1.05)  # a Sluice that is not run between the choice and the request


def most_in(seconds, times):
    """The most of the sorted times that fall into any window of that length."""
    return max(bisect.bisect_left(times, at + seconds) - i for i, at in enumerate(times))


class ReconnectsTest(PressureCase):
    def test_all_connections_are_cut(self):
        storm, calm = self.start_backends(["storm"]), self.start_backends(["calm"])
        self.start_sluice(configuration({"calm": calm, "storm": storm},
                                        routes={"/": "calm", "/storm": "storm"}, pool_keys=KEYS))
        self.start_probe("--sessions", 20, "--rate", 50, "--first-uid", 100_000)
        client = self.start_client("client", "--path", "/storm", "--sessions", CLIENTS, "--ramp",
                                   RATE * 0.8, "--policy", "jitter:500,2000")
        self.assertEqual(client.wait_until_open(), CLIENTS)
        before = self.measure()

        self.probe.window()
        begun, windows = time.monotonic(), []
        self.backends["storm"].cut_all()

        def back():
            if time.monotonic() - begun > WINDOW * (len(windows) + 1):
                windows.append(self.probe.window())
            return self.back(client)
        summary = wait_for("all clients to be back", back, SECONDS_TO_RETURN + 10)
        windows.append(self.probe.window())
        self.assertEqual([(one["failures"], one["closes"]) for one in windows],
                         [({}, {})] * len(windows))
        self.note(f"echo p99 of others {before['p99_ms']:.2f} ms before; in the storm "
                  + ", ".join(f"{one['p99_ms']:.2f}" for one in windows))
        client.finish()
        self.note(f"statuses {summary['statuses']}, failures {summary['failures']}")
        self.assertEqual(summary["closes"], {"1012": CLIENTS})
        times = sorted(line["asked_at"] for line in self.reported([client])[1]
                       if line["backend"] == "storm" and line["ended"] != "cut")
        self.assertEqual(len(times), CLIENTS)
        self.figure("all are back after the first one in", times[-1] - times[0],
                    SECONDS_TO_RETURN, " s")
        self.note(f"a tenth of a second saw {most_in(0.1, times)}, a second {most_in(1, times)}")
        # The moment in which thousands are told and come at once is work that has to be done.
        self.assert_unharmed(before, median(windows), 2, 1)
        for width in (1, 5):
            self.figure(f"upgrades at the backend in {width} s", most_in(width, times),
                        (RATE * width + BURST) * TOLERANCE)
        self.assertGreater(summary["statuses"].get("503", 0), 0)

    @staticmethod
    def back(client):
        """The summary, once all have been cut and are open again."""
        summary = client.summary()
        came = summary["incarnations"] == CLIENTS and summary["open"] == CLIENTS
        return summary if came else None


if __name__ == "__main__":
    unittest.main()
