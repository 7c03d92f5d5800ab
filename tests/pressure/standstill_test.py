#!/usr/bin/python3
"""A backend stands still and goes on, again and again, under sessions that talk. Nobody hangs for
longer than a ping and its answer may take, and everybody comes back to the backend that was theirs.
"""

import os
import signal
import time
import unittest

from pressure import PressureCase, configuration, sized, wait_for

SESSIONS = sized(150, 400)
ROUNDS = sized(2, 10)
RATE = 10  # messages a second of each backend: the last one may come at any moment of an interval
INTERVAL_MS, TIMEOUT_MS = 500, 500
GRAIN_MS = 250  # of the sweep over all sessions, and of the two clocks
BUSY_MS = sized(500, 0)  # what a machine with other work may add
NAMES = ["one", "two", "three"]
# A backend that was away is soon given sessions again.
HEALTH = """
health = { type = "websocket", interval = "200ms", timeout = "200ms", rise = 1, fall = 2 }
outlier = { ejection_time = "500ms", max_ejection_time = "1s" }
"""


class StandstillTest(PressureCase):
    def test_nobody_hangs_and_everybody_comes_home(self):
        pools = {"app": self.start_backends(NAMES, "--rate", RATE)}
        self.start_sluice(configuration(
            pools, pool_keys='bounded_load = 0\nslow_start = "0s"\n' + HEALTH,
            route=f'heartbeat.interval = "{INTERVAL_MS}ms"\nheartbeat.timeout = "{TIMEOUT_MS}ms"\n'
                  'handshake_timeout = "1s"'))
        client = self.start_client("client", "--sessions", SESSIONS, "--rate", 2, "--ramp", 1000,
                                   "--policy", "jitter:200,600", "--connect-timeout", 3000)
        self.assertEqual(client.wait_until_open(), SESSIONS)
        homes, longest = self.homes(), 0.0
        self.assertEqual(len(homes), SESSIONS)
        for number in range(ROUNDS):
            name = NAMES[number % len(NAMES)]
            mine = {uid for uid, home in homes.items() if home == name}
            longest = max(longest, self.stop_and_go(client, name, mine))
            wait_for("everybody to be open", lambda: client.summary()["open"] == SESSIONS)
            wait_for("all backends", lambda: self.sluice.metric("sluice_backend_up") == len(NAMES))
            # Who went elsewhere meanwhile stays there; whoever comes now comes home.
            ended = self.ended(client)
            kicked = self.sluice.told(200, "DELETE", "/sessions", pool="app", code=1012)["kicked"]
            self.assertEqual(kicked, SESSIONS)
            wait_for("everybody to be back", lambda n=ended + SESSIONS: (
                self.ended(client) >= n and client.summary()["open"] == SESSIONS))
            self.assertEqual(self.homes(), homes, f"round {number}")
        self.figure("silence until the CLOSE", longest * 1e3,
                    INTERVAL_MS + TIMEOUT_MS + GRAIN_MS + BUSY_MS, " ms")
        summary = client.finish()
        self.note(f"closes {summary['closes']}, statuses {summary['statuses']}")
        self.assertEqual(set(summary["closes"]), {"1012"})
        self.assertEqual((summary["torn"], summary["gaps"], summary["duplicates"]), (0, 0, 0))

    def stop_and_go(self, client, name, mine):
        """Stops a backend until all its sessions were told; how many seconds the last one took."""
        process = self.backends[name].tool.process
        known = len(client.incarnations())
        stopped_at = time.monotonic()
        os.kill(process.pid, signal.SIGSTOP)
        try:
            def told():
                client.summary()  # the report is complete to here
                ended = [line for line in client.incarnations()[known:] if line.get("opened_at")]
                return ended if {line["uid"] for line in ended} >= mine else None
            ended = wait_for("a CLOSE for everybody", told, 20, 0.1)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        self.assertEqual({line["uid"] for line in ended}, mine)
        self.assertEqual({line["close_code"] for line in ended}, {1012})
        return max(line["close_at"] for line in ended) - stopped_at

    @staticmethod
    def ended(client):
        return sum(client.summary()["closes"].values())

    def homes(self):
        """{uid: backend} of all open sessions."""
        def all_told():
            latest = {}
            for backend in self.backends.values():
                before = len(backend.sessions())
                backend.tool.process.send_signal(signal.SIGUSR1)
                wait_for("a report", lambda b=backend, n=before: len(b.sessions()) > n)
                latest.update({line["uid"]: line["backend"] for line in backend.sessions()[before:]
                               if line["ended"] == "open"})
            return latest if len(latest) == SESSIONS else None
        return wait_for("all sessions at their backends", all_told, 20, 0.2)


if __name__ == "__main__":
    unittest.main()
