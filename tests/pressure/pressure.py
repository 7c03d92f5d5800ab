"""What the pressure tests are made of, besides tests/deploy/lab.py: a crowd that misbehaves, a
flood from one session, a probe that tells how everybody else is served meanwhile, and figures.

With SLUICE_DEPLOY_LONG=1 the pressure is what it is meant to be and the figures are the ones that
docs/RELIABILITY.md promises. Without, it is a tenth or so, and since a machine on which tests run
is seldom idle, times may be longer by NOISE_MS.
"""

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))

from lab import (LONG, SLUICE, TOOLS, LabCase, Tool, configuration, sized,  # noqa: E402
                 wait_for)

__all__ = ["Crowd", "Flood", "LONG", "PressureCase", "Probe", "WINDOW", "configuration",
           "median", "sized", "wait_for"]

NOISE_MS = sized(30, 0)
WINDOW = sized(0.3, 1)  # seconds of a measurement
WINDOWS = sized(3, 11)
SECONDS_TO_OPEN = 30


class Probe:
    """pressure_probe: sessions that are served well, or else tell."""

    def __init__(self, folder, address, *options):
        self.tool = Tool([TOOLS / "pressure_probe", "--connect", address, *options],
                         folder / "probe.log", takes_orders=True)
        json.loads(self.tool.line(SECONDS_TO_OPEN))  # all are open

    def window(self):
        """Figures since it was asked last."""
        self.tool.order("window")
        return json.loads(self.tool.line(SECONDS_TO_OPEN))

    def upgrade(self):
        """A new session, now."""
        self.tool.order("upgrade")
        return json.loads(self.tool.line(SECONDS_TO_OPEN))

    def close(self):
        self.tool.close()


class Crowd:
    """pressure_crowd: connections that misbehave."""

    def __init__(self, folder, address, kind, connections, *options):
        self.size = connections
        self.tool = Tool([TOOLS / "pressure_crowd", "--connect", address, "--kind", kind,
                          "--connections", connections, *options], folder / f"{kind}.log",
                         takes_orders=True)

    def report(self):
        self.tool.order("report")
        return json.loads(self.tool.line(SECONDS_TO_OPEN))

    def close_all(self):
        self.tool.order("close")
        return json.loads(self.tool.line(SECONDS_TO_OPEN))

    def wait_until_connected(self):
        """The report once the last one is there, or was."""
        def all_came():
            report = self.report()
            return report if report["to_come"] == 0 else None
        return wait_for("all connections", all_came)

    def is_gone(self):
        report = self.report()
        return report["to_come"] == report["connected"] == 0

    def close(self):
        self.tool.close()


class Flood:
    """pressure_flood: one session that sends without end."""

    def __init__(self, folder, address, kind, count, *options):
        self.tool = Tool([TOOLS / "pressure_flood", "--connect", address, "--kind", kind,
                          "--count", count, *options], folder / f"{kind}.log")

    def is_over(self):
        return self.tool.process.poll() is not None

    def finish(self, seconds=120):
        return json.loads(self.tool.line(seconds))

    def close(self):
        self.tool.close()


def median(windows):
    return sorted(windows, key=lambda one: one["p99_ms"])[len(windows) // 2]


class PressureCase(LabCase):
    def start_probe(self, *options, listener="plain"):
        self.probe = self.start(Probe, self.sluice.listeners[listener], *options)
        return self.probe

    def start_crowd(self, kind, connections, *options, listener="plain"):
        return self.start(Crowd, self.sluice.listeners[listener], kind, connections, *options)

    def start_flood(self, kind, count, *options):
        return self.start(Flood, self.sluice.listeners["plain"], kind, count, "--path", "/flood",
                          *options)

    # Figures.

    def figure(self, name, seen, most, unit=""):
        """A line for the log, and the verdict: `seen` is at most `most`."""
        self.note(f"{name}: at most {most:.4g}{unit} / {seen:.4g}{unit} "
                  f"(load {os.getloadavg()[0]:.1f})")
        self.assertLessEqual(seen, most, name)

    def measure(self, look=lambda: None):
        """The median of a few windows of the probe: what else the machine does comes and goes, what
        Sluice does to its sessions stays. `look` is called all the time."""
        windows = []
        self.probe.window()
        for _ in range(WINDOWS):
            end = time.monotonic() + WINDOW
            while (left := end - time.monotonic()) > 0:
                look()
                time.sleep(min(left, 0.1))  # until the time that is measured is over
            windows.append(self.probe.window())
            self.assertEqual((windows[-1]["failures"], windows[-1]["closes"]), ({}, {}))
            self.assertGreater(windows[-1]["echoes"], 0)
        return median(windows)

    def assert_unharmed(self, before, under, factor, plus_ms):
        """The echoes of the probe take little longer than before."""
        self.figure(f"echo p99 of others ({before['p99_ms']:.2f} ms before)", under["p99_ms"],
                    before["p99_ms"] * factor + plus_ms + NOISE_MS, " ms")

    def cpu_share(self, seconds):
        """Cores that Sluice uses."""
        before = self.sluice.cpu_seconds()
        time.sleep(seconds)  # the length of what is measured
        return (self.sluice.cpu_seconds() - before) / seconds

    def growth_until(self, over, before_kib, seconds=120):
        """The most by which Sluice's memory grew until over(), in KiB."""
        most = 0

        def look():
            nonlocal most
            most = max(most, self.sluice.memory_kib() - before_kib)
            return over()
        wait_for("the end of the pressure", look, seconds, 0.05)
        return most
