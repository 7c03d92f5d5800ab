#!/usr/bin/python3
"""The units in docs/systemd say what the proxy does, and systemd understands each line."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNITS = ROOT / "docs" / "systemd"


def read_unit(name):
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # keys keep their case
    parser.read_string((UNITS / name).read_text())
    return parser


def seconds_of_drain():
    """ready_delay + window + grace of the sample configuration, which has the defaults."""
    text = (ROOT / "config" / "sluice.toml").read_text()
    return sum(int(re.search(rf'^{key} = "(\d+)s"', text, re.M).group(1))
               for key in ("ready_delay", "window", "grace"))


class UnitsTest(unittest.TestCase):
    def setUp(self):
        self.service = read_unit("sluice.service")["Service"]

    def test_the_drain_ends_before_the_service_is_killed(self):
        self.assertGreater(int(self.service["TimeoutStopSec"]), seconds_of_drain())

    def test_what_cannot_be_helped_is_not_tried_again(self):
        source = (ROOT / "proxy" / "cli" / "exit_status.h").read_text()
        statuses = dict(re.findall(r"(k\w+) = (\w+)", source))
        self.assertEqual(statuses["kConfig"], "EX_CONFIG")
        self.assertEqual(self.service["RestartPreventExitStatus"].split(),
                         [statuses["kUsage"], str(os.EX_CONFIG)])
        self.assertEqual(self.service["Restart"], "on-failure")

    def test_the_takeover_socket_has_its_folder(self):
        text = (UNITS / "sluice.service").read_text()
        path = re.search(r'takeover_socket = "(.*?)"', text).group(1)
        self.assertEqual(pathlib.Path(path).parent,
                         pathlib.Path("/run") / self.service["RuntimeDirectory"])

    def test_the_socket_is_as_the_proxy_sets_its_own(self):
        unit = read_unit("sluice.socket")["Socket"]
        source = (ROOT / "proxy" / "net" / "socket.cc").read_text()
        ours = {name: value for name, value in re.findall(r"constexpr int k(\w+) = (\d+);", source)}
        for key, name in (("Backlog", "Backlog"), ("KeepAliveTimeSec", "KeepIdle"),
                          ("KeepAliveIntervalSec", "KeepInterval"),
                          ("KeepAliveProbes", "KeepCount")):
            self.assertEqual(unit[key], ours[name], key)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not here")
    def test_systemd_understands_each_line(self):
        with tempfile.TemporaryDirectory() as directory:
            copies = []
            for name in ("sluice.service", "sluice.socket"):
                copies.append(pathlib.Path(directory) / name)
                # It looks for the program, which is not installed where tests run.
                copies[-1].write_text((UNITS / name).read_text().replace("/usr/bin/sluice",
                                                                          shutil.which("true")))
            done = subprocess.run(["systemd-analyze", "verify", *map(str, copies)],
                                  capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
