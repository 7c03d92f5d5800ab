#!/usr/bin/python3
"""Measures Sluice beside other proxies and prints a table for each scenario.

    tests/bench/run.py [--scenario NAME]... [--repeats N] [--seconds S] [--json FILE]

Each proxy runs alone on one core, with one worker; the load and the backend share another. The
contenders take turns (A B C, B C A, ...), each turn with a process started for it, so that what
else the machine does falls on all of them alike. What is compared is the CPU time of the proxy's
processes for each round trip, or the memory for each session; docs/BENCHMARKS.md says more.

Installs nothing: `./dev bench` does. A contender whose program is missing is left out, aloud.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "bench"
TOOLS = ROOT / "build" / "bench"
PATIENCE = 10  # seconds for a process to start or to end


class Failure(Exception):
    """Something that makes the figures worthless; one sentence."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    mode: str  # "echo" or "idle"
    tls: bool
    title: str


SCENARIOS = [
    Scenario("echo64", "echo", False, "64-byte echo"),
    Scenario("echo64-tls", "echo", True, "64-byte echo, TLS 1.3 to the client"),
    Scenario("idle", "idle", False, "idle sessions"),
    Scenario("idle-tls", "idle", True, "idle sessions, TLS 1.3 to the client"),
]


# Processes.

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(core, command, **options):
    """A child pinned to `core`; killed at the end, with the processes it started."""
    process = subprocess.Popen(["taskset", "-c", str(core), *map(str, command)],
                               start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: start_new_session
        process.wait()
        if process.stdout:
            process.stdout.close()


@contextlib.contextmanager
def tool_with_port(core, command):
    """A tool of ours that prints its port when it serves."""
    with running(core, command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline().strip()
        if not line:
            raise Failure(f"{command[0].name} did not start")
        yield process, int(line)


def wait_until_serving(process, port, log):
    """Until something is answered, be it a refusal: a connection alone may only have been queued
    for a worker that does not run yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with (contextlib.suppress(OSError),
              socket.create_connection(("127.0.0.1", port), 1) as probe):
            probe.sendall(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")
            probe.recv(1)
            return
        time.sleep(0.02)  # between two tries, not instead of one
    raise Failure(f"{process.args[3]} does not serve:\n{log.read_text()}")


def tree_of(pid):
    """`pid` and all its descendants."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


# Contenders.

@dataclasses.dataclass(frozen=True)
class Contender:
    name: str
    program: pathlib.Path
    version: str
    template: str = ""  # in conf/; empty: takes no configuration

    def command(self, config):
        return [self.program, *{
            "sluice": ["run", "-c", config],
            "haproxy": ["-db", "-q", "-f", config],
            "nginx": ["-p", config.parent, "-c", config, "-e", "stderr"],
        }[self.name]]

    def tls_text(self, certificate):
        if certificate is None:
            return ""
        chain, key, both = certificate
        return {
            "sluice": f'tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]',
            "haproxy": f"ssl crt {both} alpn http/1.1",
            "nginx": f"ssl; ssl_certificate {chain}; ssl_certificate_key {key}; "
                     # Without TLS 1.3 by default before 1.23.4.
                     "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m",
        }[self.name]

    @contextlib.contextmanager
    def serving(self, core, backend, certificate):
        """Yields the process and the port that it takes clients on."""
        if self.name == "relay":
            with tool_with_port(core, [self.program, "--backend", backend]) as relay:
                yield relay
            return
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            port = free_port()
            text = (HERE / "conf" / self.template).read_text()
            for name, value in {"PORT": port, "ADMIN": free_port(), "BACKEND": backend,
                                "DIR": folder, "TLS": self.tls_text(certificate)}.items():
                text = text.replace(f"@{name}@", str(value))
            config = pathlib.Path(folder) / self.template.removesuffix(".in")
            config.write_text(text)
            log = pathlib.Path(folder) / "output.log"
            with log.open("w") as output, running(core, self.command(config), stdout=output,
                                                  stderr=output) as process:
                wait_until_serving(process, port, log)
                yield process, port


def first_line(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).splitlines()[0].strip()


def find_contenders(arguments):
    found = []
    if not arguments.sluice.exists():
        raise Failure(f"{arguments.sluice} is not there: ./dev build makes it")
    found.append(Contender("sluice", arguments.sluice, first_line([arguments.sluice, "--version"]),
                           "sluice.toml.in"))
    for name, flag, template in (("haproxy", "-v", "haproxy.cfg.in"),
                                 ("nginx", "-v", "nginx.conf.in")):
        wanted = getattr(arguments, name)
        program = shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            print(f"note: {wanted} is not there; measuring without it", file=sys.stderr)
            continue
        version = first_line([program, flag]).removesuffix(" - https://haproxy.org/")
        found.append(Contender(name, pathlib.Path(program), version, template))
    found.append(Contender("relay", TOOLS / "bench_relay_floor", "bare epoll relay, no HTTP"))
    return [one for one in found if not arguments.only or one.name in arguments.only]


# Measuring.

@dataclasses.dataclass
class Bench:
    arguments: argparse.Namespace
    backend: int  # its port
    certificate: tuple  # chain, key, both in one file

    def load(self, mode, scenario, port, *options):
        command = [TOOLS / "bench_load", mode, "--port", port, *options]
        if scenario.tls:
            command += ["--tls", self.certificate[0]]
        return command

    def echo(self, scenario, port, pids, seconds, warmup, connections):
        command = self.load("echo", scenario, port, "--connections", connections, "--size", 64,
                            "--seconds", seconds, "--warmup", warmup)
        if pids:
            command += ["--cpu-of", pids[0]]  # its descendants are counted with it
        with running(self.arguments.load_core, command, stdout=subprocess.PIPE,
                     text=True) as process:
            output = process.stdout.read()
            if process.wait() != 0:
                raise Failure(f"the load failed in scenario {scenario.name}")
            return json.loads(output)

    def run_echo(self, scenario, port, pids):
        got = self.echo(scenario, port, pids, self.arguments.seconds, self.arguments.warmup,
                        self.arguments.connections)
        return {
            "cpu_us": got["cpu_seconds"] / got["messages"] * 1e6,
            "per_second": got["messages"] / got["seconds"],
            "p50_us": got["p50_us"], "p99_us": got["p99_us"], "p999_us": got["p999_us"],
            "busy": got["cpu_seconds"] / got["seconds"],
        }

    def run_idle(self, scenario, port, pids):
        # What is set up with the first sessions is not theirs.
        self.echo(scenario, port, pids, 0.2, 0.1, 2)
        before = settled_memory(pids)
        sessions = self.arguments.sessions
        with running(self.arguments.load_core,
                     self.load("idle", scenario, port, "--connections", sessions),
                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout.readline().strip() != "ready":
                raise Failure(f"the load failed in scenario {scenario.name}")
            after = settled_memory(pids)
            process.stdin.close()
            output = process.stdout.read()
            if process.wait() != 0:
                raise Failure(f"a session did not stay idle in scenario {scenario.name}")
            assert json.loads(output)["sessions"] == sessions
        return {
            "session_bytes": (after - before) / sessions,
            "empty_kib": before / 1024,
        }

    def turn(self, scenario, contender):
        if contender is None:  # straight to the backend
            return self.run_echo(scenario, self.backend, [])
        certificate = self.certificate if scenario.tls else None
        with contender.serving(self.arguments.proxy_core, self.backend,
                               certificate) as (process, port):
            measure = self.run_echo if scenario.mode == "echo" else self.run_idle
            return measure(scenario, port, tree_of(process.pid))


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


# Reporting.

COLUMNS = {
    "echo": [("cpu_us", "CPU us/round trip", 2), ("per_second", "round trips/s", 0),
             ("p50_us", "p50 us", 0), ("p99_us", "p99 us", 0), ("p999_us", "p99.9 us", 0),
             ("busy", "core busy", 2)],
    "idle": [("session_bytes", "bytes/session", 0), ("empty_kib", "KiB before the first", 0)],
}


def number(value, digits):
    return f"{value:,.{digits}f}"


def table(scenario, results):
    """Markdown: medians; behind the headline figure its lowest and highest, and Sluice's ratio."""
    columns = COLUMNS[scenario.mode]
    key, _, digits = columns[0]
    lines = ["| | " + " | ".join(title for _, title, _ in columns[:1])
             + " | min to max | Sluice / this | "
             + " | ".join(title for _, title, _ in columns[1:]) + " |",
             "|---" * (len(columns) + 3) + "|"]
    ours = [turn[key] for turn in results.get("sluice", [])]
    for name, turns in results.items():
        values = [turn[key] for turn in turns]
        median = statistics.median(values)
        ratio = ""
        if ours and name != "sluice" and median > 0:
            pairs = [a / b for a, b in zip(ours, values)]
            ratio = (f"{statistics.median(ours) / median:.2f} "
                     f"({min(pairs):.2f} to {max(pairs):.2f})")
        cells = [name,
                 number(median, digits) if median > 0 else "",
                 f"{number(min(values), digits)} to {number(max(values), digits)}"
                 if median > 0 else "",
                 ratio]
        for other, _, places in columns[1:]:
            value = statistics.median(turn[other] for turn in turns)
            cells.append("" if name == "direct" and other == "busy" else number(value, places))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def revision():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def make_certificate(folder):
    chain, key, both = (folder / name for name in ("chain.pem", "key.pem", "both.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench.test",
                    "-addext", "subjectAltName=DNS:bench.test", "-keyout", key, "-out", chain],
                   check=True, capture_output=True)
    both.write_text(chain.read_text() + key.read_text())
    return chain, key, both


def build_tools():
    options = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-S", HERE, "-B", TOOLS, "-G", "Ninja", "--log-level=WARNING"],
                   **options)
    subprocess.run(["cmake", "--build", TOOLS], **options)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", action="append", choices=[one.name for one in SCENARIOS],
                        help="one of several; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="counted, of each echo turn")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before")
    parser.add_argument("--connections", type=int, default=200, help="of the echo scenarios")
    parser.add_argument("--sessions", type=int, default=4000, help="of the idle scenarios")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="of sluice, haproxy, nginx, relay, direct; default: all")
    parser.add_argument("--sluice", type=pathlib.Path, default=ROOT / "build/release/bin/sluice")
    parser.add_argument("--haproxy", default="haproxy", help="program to measure")
    parser.add_argument("--nginx", default="nginx", help="program to measure")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--load-core", type=int, default=cores[0])
    parser.add_argument("--proxy-core", type=int, default=cores[-1])
    parser.add_argument("--json", type=pathlib.Path, help="writes every turn there")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    return arguments


def main(argv):
    arguments = parse(argv)
    chosen = [one for one in SCENARIOS
              if not arguments.scenario or one.name in arguments.scenario]
    build_tools()
    contenders = find_contenders(arguments)
    direct = not arguments.only or "direct" in arguments.only
    report = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "revision": revision(),
        "command": " ".join(["tests/bench/run.py", *argv]),
        "versions": {one.name: one.version for one in contenders},
        "load_average": [os.getloadavg()[0]], "turns": {},
    }
    print(f"{report['date']}, {report['machine']}, revision {report['revision']}")
    for one in contenders:
        print(f"{one.name}: {one.version}")
    if arguments.load_core == arguments.proxy_core:
        print("note: load and proxy share the only core; the figures are rough", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, backend = stack.enter_context(
            tool_with_port(arguments.load_core, [TOOLS / "bench_echo_backend"]))
        bench = Bench(arguments, backend, make_certificate(folder))
        for scenario in chosen:
            field = {one.name: one for one in contenders}
            if scenario.tls:
                field.pop("relay", None)
            elif scenario.mode == "echo" and direct:
                field["direct"] = None
            names = list(field)
            results = {name: [] for name in names}
            for repeat in range(arguments.repeats):
                shift = repeat % len(names)
                for name in names[shift:] + names[:shift]:
                    results[name].append(bench.turn(scenario, field[name]))
                    print(f"  {scenario.name} {repeat + 1}/{arguments.repeats} {name} "
                          f"load {os.getloadavg()[0]:.1f} "
                          + json.dumps({key: round(value, 3)
                                        for key, value in results[name][-1].items()}),
                          file=sys.stderr)
            report["turns"][scenario.name] = results
            report["load_average"].append(os.getloadavg()[0])
            how = (f"{arguments.connections} connections" if scenario.mode == "echo"
                   else f"{arguments.sessions} sessions")
            print(f"\n{scenario.name}: {scenario.title}, {how}, medians of "
                  f"{arguments.repeats}\n\n{table(scenario, results)}", flush=True)
    loads = report["load_average"]
    print(f"\nLoad average of the machine meanwhile: {min(loads):.1f} to {max(loads):.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        sys.exit(f"run.py: {failure}")
