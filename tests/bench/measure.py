"""One turn of one contender in one scenario: starts it, lets bench_load at it, reads the figures."""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import time

from contenders import PATIENCE, Failure, running

MB = 1e6
MIB = 1024 * 1024
DRAIN_WINDOW = 5  # seconds; how long each proxy may take to end, in its own configuration


def tree_of(pid):
    """`pid` and all its descendants."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def memory_of(pids):
    """Bytes in user space, summed over the processes: anonymous and shared, resident or swapped
    out. Pages of files, which are code, come and go with what else the machine does."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Pss_Anon", "Pss_Shmem", "SwapPss"):
                total += int(rest.split()[0]) * 1024
    return total


def resident_kib(pids):
    """VmRSS, summed over the processes."""
    total = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total


def settled_memory(pids):
    """memory_of once it has stood still for half a second."""
    deadline = time.monotonic() + PATIENCE
    last = memory_of(pids)
    since = time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.1)  # the interval of the samples
        now = memory_of(pids)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= 0.5:
            return now
    raise Failure("the memory of the proxy does not stand still")


def figures_of(got, busy):
    """The figures of a turn that counted, from what bench_load printed. CPU is for one message, one
    MB of payload or one connection, whichever it is about."""
    seconds = got["seconds"]
    if "bytes" in got:
        count, figures = got["bytes"] / MB, {"mib_per_second": got["bytes"] / MIB / seconds}
    else:
        count = got["messages"] if "messages" in got else got["connections"]
        figures = {"per_second": count / seconds,
                   **{key: got[key] for key in ("p50_us", "p99_us", "p999_us")}}
    if count == 0:
        raise Failure("nothing came through within the time that counts")
    figures |= {key: got[key] for key in ("lag_p99_us", "tickets_reused") if key in got}
    if busy:
        figures |= {"cpu_us": got["cpu_seconds"] / count * 1e6,
                    "busy": got["cpu_seconds"] / seconds}
    return figures


@dataclasses.dataclass
class Bench:
    arguments: argparse.Namespace
    tools: pathlib.Path
    backend: int  # its port
    certificate: tuple  # chain, key, both in one file

    def load_command(self, mode, scenario, port, *options):
        command = [self.tools / "bench_load", mode, "--port", port, *options]
        if scenario.tls:
            command += ["--tls", self.certificate[0]]
        return command

    def load_to_its_end(self, command, cores):
        with running(cores, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                     text=True) as process:
            output, complaint = process.communicate()
            if process.returncode != 0:
                raise Failure(complaint.strip() or "the load failed")
            return json.loads(output)

    def counted(self, scenario, port, pid, cores=None):
        """The modes that count for a while. `pid` None: no proxy."""
        command = self.load_command(scenario.mode, scenario, port, *scenario.options,
                                    "--seconds", self.arguments.seconds,
                                    "--warmup", self.arguments.warmup)
        if pid is not None:
            command += ["--cpu-of", pid]
        got = self.load_to_its_end(command, cores or self.arguments.load_core)
        return figures_of(got, busy=pid is not None)

    def idle(self, scenario, port, pid):
        pids = tree_of(pid)
        rss = resident_kib(pids)
        # What is set up with the first sessions is not theirs.
        self.load_to_its_end(self.load_command("echo", scenario, port, "--connections", 2,
                                               "--seconds", 0.2, "--warmup", 0.1),
                             self.arguments.load_core)
        before = settled_memory(pids)
        sessions = self.arguments.sessions
        command = self.load_command("idle", scenario, port, "--connections", sessions,
                                    "--burst", 2, "--size", 65536)
        with running(self.arguments.load_core, command, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE, text=True) as process:
            self.expect_line(process, "ready")
            after = settled_memory(pids)
            self.tell(process)
            self.expect_line(process, "done")
            after_burst = settled_memory(pids)
            process.stdin.close()
            output = process.stdout.read()
            if process.wait() != 0 or json.loads(output)["sessions"] != sessions:
                raise Failure("a session did not stay idle")
        return {
            "session_bytes": (after - before) / sessions,
            "burst_bytes": (after_burst - before) / sessions,
            "rss_kib": rss,
            "empty_kib": before / 1024,
        }

    def events(self, scenario, port, pid):
        pids = tree_of(pid)
        rss = resident_kib(pids)
        self.load_to_its_end(self.load_command("http", scenario, port, "--connections", 2,
                                               "--seconds", 0.2, "--warmup", 0.1),
                             self.arguments.load_core)
        before = settled_memory(pids)
        streams = self.arguments.sessions
        command = self.load_command("events", scenario, port, "--connections", streams)
        with running(self.arguments.load_core, command, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE, text=True) as process:
            self.expect_line(process, "ready")
            after = settled_memory(pids)
            process.stdin.close()
            output = process.stdout.read()
            if process.wait() != 0 or json.loads(output)["sessions"] != streams:
                raise Failure("a stream did not stay idle")
        return {"session_bytes": (after - before) / streams, "rss_kib": rss,
                "empty_kib": before / 1024}

    def drain(self, scenario, port, proxy, graceful_signal):
        command = self.load_command("drain", scenario, port, "--seconds", 3 * DRAIN_WINDOW,
                                    *scenario.options)
        with running(self.arguments.load_core, command, stdin=subprocess.PIPE,
                     stdout=subprocess.PIPE, text=True) as process:
            self.expect_line(process, "ready")
            proxy.send_signal(graceful_signal)
            told = time.monotonic()
            self.tell(process)
            output = process.stdout.read()
            if process.wait() != 0:
                raise Failure("the load failed")
            proxy.wait(3 * DRAIN_WINDOW)
            return {**json.loads(output), "exit_ms": (time.monotonic() - told) * 1000}

    @staticmethod
    def expect_line(process, wanted):
        if process.stdout.readline().strip() != wanted:
            raise Failure("the load failed")

    @staticmethod
    def tell(process):
        process.stdin.write("\n")
        process.stdin.flush()

    def turn(self, scenario, contender):
        """The figures of one turn. `contender` None: straight to the backend."""
        if contender is None:
            return self.counted(scenario, self.backend, None)
        cores = self.arguments.proxy_core
        if scenario.name == "workers2":
            cores = f"{self.arguments.load_core},{self.arguments.proxy_core}"
        certificate = self.certificate if scenario.tls else None
        window = f"{DRAIN_WINDOW}s" if scenario.mode == "drain" else "30s"
        with contender.serving(cores, self.backend, certificate, window) as (process, port):
            if scenario.mode == "idle":
                return self.idle(scenario, port, process.pid)
            if scenario.mode == "events":
                return self.events(scenario, port, process.pid)
            if scenario.mode == "drain":
                return self.drain(scenario, port, process, contender.graceful_signal)
            load_cores = cores if scenario.name == "workers2" else None
            return self.counted(scenario, port, process.pid, load_cores)
