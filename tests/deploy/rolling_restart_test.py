#!/usr/bin/python3
"""Backends are replaced one after the other, and Sluice itself is stopped, under sessions that
talk: every client is told 1012, and not one message is lost, doubled or out of order, either way.
"""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import LabCase, configuration, sized, wait_for  # noqa: E402

ROUNDS = sized(3, 20)
SESSIONS = sized(600, 2000)
RATE = 5  # messages a second, each way
WINDOW = sized("1s", "3s")
NAMES = ("one", "two", "three")


class DeployCase(LabCase):
    def start_all(self, tables, *options):
        backends = self.start_backends(NAMES, "--rate", RATE)
        self.start_sluice(configuration({"app": backends}, tables=tables))
        client = self.start_client("client", "--sessions", SESSIONS, "--rate", RATE, *options)
        self.assertEqual(client.wait_until_open(), SESSIONS)
        return client


class RollingRestartTest(DeployCase):
    def test_backends_are_restarted_in_turn(self):
        client = self.start_all("", "--policy", "fixed:100")
        moved = 0
        for _ in range(ROUNDS):
            for name in NAMES:
                self.sluice.drain("app", name, window=WINDOW)
                state = self.sluice.wait_until_drained("app", name)
                self.assertEqual((state["open"], state["drain"]["remaining"]), (0, 0))
                self.assertEqual(state["drain"]["forced"], 0)
                self.assertEqual(state["drain"]["clean"], state["drain"]["total"])
                self.assertGreater(state["drain"]["total"], 0)
                moved += state["drain"]["total"]
                self.backends[name].stop()
                self.backends[name].start()
                self.sluice.undrain("app", name)
                wait_for("all sessions to be back",
                         lambda: client.summary()["open"] == SESSIONS)
        self.assertEqual(client.finish()["failures"], {})
        verdict = self.assert_nothing_lost(client)
        self.assertEqual(dict(verdict.codes), {1012: moved})
        self.assertEqual(self.sluice.metric("sluice_torn_total"), 0)


class StopTest(DeployCase):
    def test_sluice_is_stopped(self):
        client = self.start_all(f'[drain]\nwindow = "{WINDOW}"\ngrace = "10s"\n',
                                "--policy", "fixed:60000")
        self.sluice.terminate()
        self.sluice.wait_until_gone(self.sluice.pid)
        wait_for("every close", lambda: client.summary()["closes"] == {"1012": SESSIONS})
        client.finish()
        verdict = self.assert_nothing_lost(client)
        self.assertEqual(dict(verdict.codes), {1012: SESSIONS})


if __name__ == "__main__":
    unittest.main()
