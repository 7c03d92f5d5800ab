#!/usr/bin/python3
"""What the proxy tells systemd over its life, and that it serves on the sockets that systemd has
opened. systemd_peer.py plays systemd.
"""

import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import (PR_SET_CHILD_SUBREAPER, SECONDS_TO_END, SLUICE, LabCase,  # noqa: E402
                 configuration, wait_for)
from systemd_peer import NotifySocket, start_activated  # noqa: E402

WATCHDOG_SECONDS = 1


def listening(family=socket.AF_INET, host="127.0.0.1"):
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((host, 0))
    one.listen(64)
    return one


def get(port, path="/"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def monotonic_usec():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class SystemdCase(LabCase):
    def setUp(self):
        super().setUp()
        self.app = self.start_backends(["one"])
        folder = tempfile.TemporaryDirectory(prefix="sl-")
        self.addCleanup(folder.cleanup)
        self.takeover_socket = f"{folder.name}/takeover.sock"
        self.config = self.folder / "sluice.toml"
        self.ready_file = self.folder / "ready.json"
        self.log = self.folder / "sluice.log"
        self.configure()
        self.systemd = NotifySocket()
        self.addCleanup(self.systemd.close)
        self.processes = []  # pids of those that have not been waited for
        self.started = {}  # Popen by pid, of those that were started here
        self.addCleanup(self.end_all)
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def configure(self, drain='window = "0s"\ngrace = "2s"', **changes):
        text = configuration({"app": self.app},
                             server=f'takeover_socket = "{self.takeover_socket}"',
                             tables=f"[drain]\n{drain}\n", **changes)
        beside = self.config.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.config)

    def environment(self, **more):
        return {**self.systemd.environment(**more), "SLUICE_READY_FILE": str(self.ready_file)}

    def start_process(self, sockets=(), **more):
        command = [SLUICE, "run", "-c", self.config]
        with self.log.open("ab") as log:
            options = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL}
            if not sockets:  # then systemd sets no variables
                return subprocess.Popen(command, env=self.environment(**more), **options)
            return start_activated(command, list(sockets), self.environment(**more), **options)

    def run_service(self, sockets=(), **more):
        """Starts the service, and returns its process once it has said that it is ready."""
        process = self.start_process(sockets, **more)
        self.remember(process)
        self.systemd.follow(process.pid)
        self.ready_from(process.pid)
        return process

    def ready_from(self, pid):
        message = self.systemd.wait_for("readiness", lambda heard: heard.get("READY") == "1")
        self.assertEqual(message.pid, pid)
        if pid not in self.processes:
            self.processes.append(pid)
        return message

    def facts(self):
        return json.loads(self.ready_file.read_text())

    def port(self, name):
        for one in self.facts()["listeners"]:
            if one["name"] == name:
                return int(one["address"].rpartition(":")[2])
        raise KeyError(name)

    def admin_port(self):
        return int(self.facts()["admin"].rpartition(":")[2])

    def remember(self, process):
        self.processes.append(process.pid)
        self.started[process.pid] = process

    def exit_of(self, pid):
        """Its exit status, or None while it runs. Successors become ours when the one that has
        started them ends."""
        if pid in self.started:
            return self.started[pid].poll()
        done, status = os.waitpid(pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if done == pid else None

    def status_of(self, pid):
        """Its exit status once it has ended."""
        status, = wait_for(f"the end of {pid}",
                           lambda: None if (found := self.exit_of(pid)) is None else (found,),
                           SECONDS_TO_END)
        self.processes.remove(pid)
        return status

    def end_all(self):
        for pid in self.processes:
            os.kill(pid, signal.SIGKILL)
        for pid in list(self.processes):
            self.status_of(pid)

    def said(self):
        return self.log.read_text(errors="replace")


class NotifyTest(SystemdCase):
    def test_ready_is_said_once_everything_is_bound(self):
        process = self.run_service()
        # At that moment: no waiting from here on.
        self.assertEqual(self.facts()["pid"], process.pid)
        self.assertEqual(get(self.port("plain"))[0], 200)
        self.assertEqual(get(self.admin_port(), "/readyz"), (200, "ready\n"))
        self.assertIn("STATUS", self.systemd.heard[-1])

    def test_nothing_is_said_by_one_that_cannot_start(self):
        self.config.write_text("[nonsense")
        process = self.start_process()
        self.assertEqual(process.wait(SECONDS_TO_END), 78)
        self.systemd.receive()
        self.assertEqual([m for m in self.systemd.heard if "READY" in m], [])
        self.assertFalse(self.ready_file.exists())

    def test_a_reload_is_announced_and_ends_whatever_comes_of_it(self):
        process = self.run_service()
        for good in (True, False, True):
            if good:
                self.configure()
            else:
                self.config.write_text("[nonsense")
            before = monotonic_usec()
            process.send_signal(signal.SIGHUP)
            reloading = self.systemd.wait_for("the reload", lambda heard: "RELOADING" in heard)
            self.assertEqual(reloading["RELOADING"], "1")
            began = int(reloading["MONOTONIC_USEC"])
            self.assertLessEqual(before, began)
            self.assertLessEqual(began, monotonic_usec())
            ready = self.ready_from(process.pid)
            self.assertEqual("fail" in ready["STATUS"], not good, ready)
            self.assertEqual(get(self.port("plain"))[0], 200)

    def test_a_drain_is_announced(self):
        process = self.run_service()
        process.terminate()
        stopping = self.systemd.wait_for("the end", lambda heard: "STOPPING" in heard)
        self.assertEqual(stopping["STOPPING"], "1")
        self.assertEqual(self.status_of(process.pid), 0)
        # A reload of one that stops would make systemd think that it goes on.
        self.systemd.receive()
        self.assertNotIn("READY", self.systemd.heard[-1])

    def test_a_reload_while_it_drains_says_nothing(self):
        self.configure(drain='ready_delay = "60s"\nwindow = "0s"')
        process = self.run_service()
        process.terminate()
        self.systemd.wait_for("the end", lambda heard: "STOPPING" in heard)
        process.send_signal(signal.SIGHUP)
        wait_for("the refusal", lambda: "configuration changes no more" in self.said())
        process.terminate()
        self.assertEqual(self.status_of(process.pid), 0)
        self.systemd.receive()
        self.assertNotIn("RELOADING", [key for m in self.systemd.heard for key in m])
        self.assertIn("STOPPING", self.systemd.heard[-1])

    def take_over(self, old):
        """The pid of the successor, once it has said that it is ready."""
        named = self.systemd.wait_for("the new main process", lambda heard: "MAINPID" in heard)
        self.assertEqual(named.pid, old)
        pid = int(named["MAINPID"])
        self.assertNotEqual(pid, old)
        self.ready_from(pid)
        return pid

    def assert_silent_since(self, old, named):
        """The old process says nothing that counts after it has named another."""
        self.systemd.receive()
        after = self.systemd.heard[[m.pid for m in self.systemd.heard].index(named):]
        self.assertNotIn(old, [m.pid for m in after])
        self.assertEqual([m for m in self.systemd.ignored if m.pid == old
                          and {"READY", "STOPPING", "MAINPID", "RELOADING"} & set(m)], [])

    def test_a_successor_becomes_the_main_process_by_signal(self):
        old = self.run_service().pid
        port, admin = self.port("plain"), self.admin_port()
        os.kill(old, signal.SIGUSR2)
        new = self.take_over(old)
        self.assertEqual(self.facts()["pid"], new)
        self.assertEqual((self.port("plain"), self.admin_port()), (port, admin))
        self.assertEqual(json.loads(get(admin, "/status")[1])["pid"], new)
        self.assertEqual(self.status_of(old), 0)
        self.assert_silent_since(old, new)

        # From then on it is the service in everything.
        os.kill(new, signal.SIGHUP)
        self.assertEqual(self.systemd.wait_for("the reload", lambda m: "RELOADING" in m).pid, new)
        self.ready_from(new)
        wait_for("the end of the old one to be known",
                 lambda: "the process before this one has ended" in self.said())
        os.kill(new, signal.SIGUSR2)
        third = self.take_over(new)
        self.assertEqual(self.status_of(new), 0)
        os.kill(third, signal.SIGTERM)
        self.assertEqual(self.systemd.wait_for("the end", lambda m: "STOPPING" in m).pid, third)
        self.assertEqual(self.status_of(third), 0)

    def test_a_successor_becomes_the_main_process_by_the_socket(self):
        old = self.run_service().pid
        second = self.start_process()
        self.remember(second)
        self.assertEqual(self.take_over(old), second.pid)
        self.assertEqual(self.status_of(old), 0)
        self.assert_silent_since(old, second.pid)

    def test_a_successor_that_fails_does_not_become_the_main_process(self):
        old = self.run_service().pid
        self.config.write_text("[nonsense")
        os.kill(old, signal.SIGUSR2)
        wait_for("the failure", lambda: "the successor has ended" in self.said())
        self.assertIn("status=78", self.said())
        self.systemd.receive()
        self.assertEqual(self.systemd.main_pid, old)
        self.assertNotIn("MAINPID", [key for m in self.systemd.heard for key in m])

    def test_the_watchdog_is_fed_also_by_a_successor(self):
        old = self.run_service(watchdog_seconds=WATCHDOG_SECONDS).pid
        self.assert_pings(old)
        os.kill(old, signal.SIGUSR2)
        new = self.take_over(old)
        self.assert_pings(new)

    def assert_pings(self, pid):
        last = time.monotonic()
        for _ in range(4):
            ping = self.systemd.wait_for("a ping", lambda m: m.get("WATCHDOG") == "1",
                                         WATCHDOG_SECONDS)
            self.assertEqual(ping.pid, pid)
            self.assertLess(time.monotonic() - last, WATCHDOG_SECONDS)
            last = time.monotonic()

    def test_without_a_watchdog_there_are_no_pings(self):
        process = self.run_service()
        process.send_signal(signal.SIGHUP)
        self.ready_from(process.pid)
        self.assertNotIn("WATCHDOG", [key for m in self.systemd.heard for key in m])


class ActivationTest(SystemdCase):
    def port_of(self, one):
        return one.getsockname()[1]

    def sockets(self, *names):
        all_of_them = []
        for name in names:
            one = listening()
            self.addCleanup(one.close)
            all_of_them.append((name, one))
        return all_of_them

    def test_a_socket_by_the_name_of_its_listener(self):
        for workers in (1, 4):
            with self.subTest(workers=workers):
                self.configure(workers=workers)
                sockets = self.sockets("plain")
                process = self.run_service(sockets)
                port = self.port_of(sockets[0][1])
                self.assertEqual(self.port("plain"), port)
                for _ in range(20):
                    self.assertEqual(get(port)[0], 200)
                process.terminate()
                self.assertEqual(self.status_of(process.pid), 0)

    def test_a_socket_by_its_address(self):
        (_, one), = self.sockets("sluice.socket")
        address = f"127.0.0.1:{self.port_of(one)}"
        self.config.write_text(self.config.read_text().replace("127.0.0.1:0", address, 1))
        self.run_service([("sluice.socket", one)])
        self.assertEqual(self.facts()["listeners"][0]["address"], address)
        self.assertEqual(get(self.port_of(one))[0], 200)

    def test_the_admin_interface_by_name(self):
        sockets = self.sockets("admin", "plain")
        self.run_service(sockets)
        self.assertEqual(get(self.port_of(sockets[0][1]), "/readyz"), (200, "ready\n"))
        self.assertEqual(self.admin_port(), self.port_of(sockets[0][1]))
        self.assertEqual(get(self.port_of(sockets[1][1]))[0], 200)

    def test_what_came_before_the_service_is_served(self):
        sockets = self.sockets("plain")
        with socket.create_connection(sockets[0][1].getsockname(), timeout=10) as early:
            early.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.run_service(sockets)
            self.assertTrue(early.recv(64).startswith(b"HTTP/1.1 200"))

    def test_one_that_no_listener_wants_is_told_of(self):
        self.run_service(self.sockets("plain", "nobody"))
        self.assertIn("is for no listener name=nobody", self.said())

    def test_one_that_does_not_listen_is_refused(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wrong:
            wrong.bind(("127.0.0.1", 0))
            process = self.start_process([("plain", wrong)])
            self.assertNotEqual(process.wait(SECONDS_TO_END), 0)
        self.assertNotEqual(self.said(), "")

    def test_sockets_go_on_to_a_successor(self):
        self.configure(workers=3)
        sockets = self.sockets("plain", "admin")
        old = self.run_service(sockets).pid
        port = self.port_of(sockets[0][1])
        os.kill(old, signal.SIGUSR2)
        named = self.systemd.wait_for("the new main process", lambda heard: "MAINPID" in heard)
        new = int(named["MAINPID"])
        self.ready_from(new)
        self.assertEqual(self.status_of(old), 0)
        self.assertEqual((self.port("plain"), self.admin_port()),
                         (port, self.port_of(sockets[1][1])))
        for _ in range(20):
            self.assertEqual(get(port)[0], 200)
        self.assertEqual(json.loads(get(self.admin_port(), "/status")[1])["pid"], new)


if __name__ == "__main__":
    unittest.main()
