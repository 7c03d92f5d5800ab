#!/usr/bin/python3
"""systemd_peer.py hears and starts as systemd does, so that a test against it means something."""

import json
import os
import signal
import socket
import subprocess
import sys
import unittest

from systemd_peer import NotifySocket, start_activated

# Sends each argument as one message to systemd, in order.
NOTIFY = """
import os, socket, sys
address = os.environ["NOTIFY_SOCKET"]
address = "\\0" + address[1:] if address[0] == "@" else address
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    for text in sys.argv[1:]:
        out.sendto(text.encode(), address)
"""

# Tells what it was started with.
TELL = """
import json, os, socket, sys
fds = range(3, 3 + int(os.environ["LISTEN_FDS"]))
print(json.dumps({
    "pid": os.getpid(),
    "variables": {name: os.environ[name] for name in os.environ if name.startswith("LISTEN_")},
    "ports": [socket.socket(fileno=fd).getsockname()[1] for fd in fds],
    "open": sorted(int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2),
    "argument": sys.argv[1],
}))
"""


def listening():
    return socket.create_server(("127.0.0.1", 0))


class NotifySocketTest(unittest.TestCase):
    def notify(self, systemd, *texts):
        """Returns the pid that has said `texts`."""
        process = subprocess.Popen([sys.executable, "-c", NOTIFY, *texts],
                                   env=systemd.environment())
        self.assertEqual(process.wait(20), 0)
        return process.pid

    def test_hears_in_order_at_a_path_and_at_an_abstract_name(self):
        for abstract in (False, True):
            with self.subTest(abstract=abstract), NotifySocket(abstract=abstract) as systemd:
                pid = self.notify(systemd, "STATUS=a=b", "READY=1\nSTATUS=serving", "STOPPING=1")
                ready = systemd.wait_for("readiness", lambda heard: heard.get("READY") == "1")
                self.assertEqual(ready, {"READY": "1", "STATUS": "serving"})
                self.assertEqual(ready.pid, pid)
                systemd.wait_for("the end", lambda heard: heard.get("STOPPING") == "1")
                self.assertEqual(systemd.heard[0], {"STATUS": "a=b"})
                self.assertEqual(len(systemd.heard), 3)

    def test_what_was_passed_over_is_not_heard_again(self):
        with NotifySocket() as systemd:
            self.notify(systemd, "READY=1", "STATUS=later")
            systemd.wait_for("status", lambda heard: "STATUS" in heard)
            with self.assertRaises(TimeoutError):
                systemd.wait_for("readiness", lambda heard: "READY" in heard, seconds=0)

    def test_silence_is_an_error_that_tells_what_was_heard(self):
        with NotifySocket() as systemd:
            self.notify(systemd, "STATUS=still loading")
            with self.assertRaisesRegex(TimeoutError, "readiness was not .*still loading"):
                systemd.wait_for("readiness", lambda heard: "READY" in heard, seconds=0.05)

    def test_hears_only_the_main_process_and_who_it_names(self):
        with NotifySocket() as systemd:
            stranger = self.notify(systemd, "STATUS=stranger")
            successor = subprocess.Popen(
                [sys.executable, "-c", "input()\n" + NOTIFY, "STATUS=successor"],
                env=systemd.environment(), stdin=subprocess.PIPE)
            main = self.notify(systemd, "STATUS=main", f"MAINPID={successor.pid}", "STATUS=old")
            systemd.follow(main)
            self.assertEqual(systemd.wait_for("status", lambda heard: "STATUS" in heard).pid, main)
            successor.communicate(b"\n", timeout=20)
            self.assertEqual(successor.returncode, 0)
            heard = systemd.wait_for("the successor", lambda heard: heard.get("STATUS") == "successor")
            self.assertEqual(heard.pid, successor.pid)
            self.assertEqual(systemd.main_pid, successor.pid)
            self.assertEqual([(ignored.pid, ignored["STATUS"]) for ignored in systemd.ignored],
                             [(stranger, "stranger"), (main, "old")])

    def test_closes_what_comes_with_a_barrier(self):
        with NotifySocket() as systemd:
            ours, theirs = os.pipe()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.connect(systemd.address)
                socket.send_fds(out, [b"BARRIER=1"], [theirs])
            os.close(theirs)
            systemd.wait_for("a barrier", lambda heard: heard.get("BARRIER") == "1")
            self.assertEqual(os.read(ours, 1), b"")
            os.close(ours)

    def test_gives_the_watchdog_its_time(self):
        with NotifySocket() as systemd:
            self.assertEqual(systemd.environment(watchdog_seconds=1.5)["WATCHDOG_USEC"], "1500000")
            self.assertNotIn("WATCHDOG_USEC", systemd.environment(base={}))


class StartActivatedTest(unittest.TestCase):
    def told(self, sockets):
        process = start_activated([sys.executable, "-c", TELL, "an argument"], sockets,
                                  stdout=subprocess.PIPE)
        out, _ = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0)
        return process.pid, json.loads(out)

    def test_passes_sockets_from_descriptor_3_with_their_names(self):
        with listening() as web, listening() as admin:
            pid, told = self.told([("web", web), ("admin", admin)])
            self.assertEqual(told["variables"], {"LISTEN_FDS": "2", "LISTEN_PID": str(pid),
                                                 "LISTEN_FDNAMES": "web:admin"})
            self.assertEqual(told["pid"], pid)
            self.assertEqual(told["argument"], "an argument")
            self.assertEqual(told["ports"],
                             [web.getsockname()[1], admin.getsockname()[1]])

    def test_passes_them_in_order_whatever_their_numbers_are(self):
        sockets = [listening() for _ in range(6)]
        try:
            sockets.sort(key=lambda one: -one.fileno())
            _, told = self.told([(f"s{one.fileno()}", one) for one in sockets])
            self.assertEqual(told["ports"], [one.getsockname()[1] for one in sockets])
            # And the folder that it lists, at most.
            self.assertLessEqual(set(told["open"]) - set(range(3, 9)), {9})
        finally:
            for one in sockets:
                one.close()

    def test_the_process_takes_signals_itself(self):
        process = start_activated(["sleep", "60"], [])
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(20), -signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
