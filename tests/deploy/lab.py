"""What the deploy tests are made of: Sluice between deploy_client and deploy_backend, told over its
admin API and by signals what an operator tells it, and the verdict on what both ends report.

The binary is $SLUICE_BIN, or build/release/bin/sluice; the tools are in build/release/bin.
Everything is on loopback and on ports that the system chose; what is started here is ended here.
With SLUICE_DEPLOY_LONG=1 the tests are as large as they are meant to be, otherwise of a size for
every day.
"""

import collections
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
TOOLS = ROOT / "build/release/bin"
LONG = os.environ.get("SLUICE_DEPLOY_LONG") == "1"
SECONDS_TO_START = 30
SECONDS_TO_END = 30
PR_SET_CHILD_SUBREAPER = 36
CUT = 1006  # in a report: no CLOSE came


def sized(quick, long):
    return long if LONG else quick


def wait_for(what, condition, seconds=20, interval=0.02):
    """Returns the first true value of condition(); raises TimeoutError when there is none."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        time.sleep(interval)  # between two looks, not instead of one
    return value


def read_lines(path):
    """The JSON objects of a report, without a last line that is not whole yet; a file that was
    never begun has none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True)
            if line.endswith("\n")]


def make_certificate(folder, name):
    """A new self-signed certificate for localhost: paths of chain and key."""
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", chain, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return chain, key


def configuration(pools, *, routes=None, workers=2, server="", certificate=None, route="",
                  pool_keys="", address="127.0.0.1:0",
                  tables='[drain]\nwindow = "1s"\ngrace = "3s"\n'):
    """The text of a configuration. `pools`: {pool: {name: address or (address, weight)}}; `routes`:
    {path: pool}, all of "/" to the first pool unless given; `certificate`: (chain, key) of a
    second, TLS listener; `address`: of the first one; `route`, `pool_keys`: more keys of every
    route and pool."""
    text = f"[server]\nworkers = {workers}\n{server}\n"
    text += f'[[listener]]\nname = "plain"\naddress = "{address}"\n'
    if certificate:
        chain, key = certificate
        text += ('[[listener]]\nname = "secure"\naddress = "127.0.0.1:0"\n'
                 f'tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]\n')
    for path, pool in (routes or {"/": next(iter(pools))}).items():
        text += (f'[[route]]\npath = "{path}"\npool = "{pool}"\naffinity = ["query:uid"]\n'
                 f'{route}\n')
    for pool, backends in pools.items():
        rows = ""
        for name, where in backends.items():
            address, weight = where if isinstance(where, tuple) else (where, 1)
            rows += f'  {{ name = "{name}", address = "{address}", weight = {weight} }},\n'
        text += f"[pool.{pool}]\n{pool_keys}\nbackends = [\n{rows}]\n"
    return text + f'{tables}\n[admin]\naddress = "127.0.0.1:0"\n[log]\naccess = "off"\n'


class Tool:
    """One of our tools as a process. Its standard output is read as it comes."""

    def __init__(self, command, log, takes_orders=False):
        with log.open("ab") as complaints:
            self.process = subprocess.Popen([str(word) for word in command],
                                            stdin=subprocess.PIPE if takes_orders
                                            else subprocess.DEVNULL, stdout=subprocess.PIPE,
                                            stderr=complaints, text=True)
        self.log = log
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def line(self, seconds):
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"{self.process.args[0]} is silent") from None
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended: " + self.log.read_text())
        return line

    def order(self, line):
        """Gives it a line of standard input."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


class Backend:
    """deploy_backend, which keeps its port over restarts."""

    def __init__(self, folder, name, *options):
        self.name, self.report = name, folder / f"{name}.backend.jsonl"
        self._log, self._options, self.port = folder / f"{name}.log", options, 0
        self.tool = None
        self.start()

    def start(self):
        self.tool = Tool([TOOLS / "deploy_backend", "--port", self.port, "--name", self.name,
                          "--report", self.report, *self._options], self._log)
        self.port = int(self.tool.line(SECONDS_TO_START))
        self.address = f"127.0.0.1:{self.port}"

    def stop(self):
        """SIGTERM: it ends at once, as it should when it holds no session."""
        self.tool.process.terminate()
        status = self.tool.process.wait(SECONDS_TO_END)
        if status != 0:
            raise RuntimeError(f"{self.name} ended with {status}: " + self._log.read_text())

    def kill(self):
        self.tool.close()

    def cut_all(self):
        """Resets all connections, and goes on taking new ones."""
        self.tool.process.send_signal(signal.SIGUSR2)

    def sessions(self):
        """What it and those before it on this port have reported."""
        return read_lines(self.report)

    def close(self):
        self.tool.close()


class Client:
    """deploy_client on the listener at `address`."""

    def __init__(self, folder, name, address, *options, prefix=()):
        self.report = folder / f"{name}.client.jsonl"
        self.tool = Tool([*prefix, TOOLS / "deploy_client", "--connect", address, "--report",
                          self.report, *options], folder / f"{name}.log")
        self.tool.line(SECONDS_TO_START)  # from now on it takes signals

    def wait_until_open(self):
        """Until each of its sessions has been open."""
        return json.loads(self.tool.line(SECONDS_TO_START + SECONDS_TO_END))["open"]

    def summary(self):
        """Of everything until now. The report is complete to here."""
        self.tool.process.send_signal(signal.SIGUSR1)
        return json.loads(self.tool.line(SECONDS_TO_END))

    def finish(self):
        """Closes all sessions with 1000; the last summary."""
        self.tool.process.terminate()
        summary = json.loads(self.tool.line(SECONDS_TO_END))
        if self.tool.process.wait(SECONDS_TO_END) != 0:
            raise RuntimeError("deploy_client failed: " + self.tool.log.read_text())
        return summary

    def incarnations(self):
        return read_lines(self.report)

    def close(self):
        self.tool.close()


class Sluice:
    """Sluice, over all its processes: a takeover replaces the process behind it."""

    def __init__(self, folder, text, name="sluice", prefix=()):
        """`prefix`: the command that starts it, which has to become it."""
        self._prefix = prefix
        self.config, self._ready = folder / f"{name}.toml", folder / f"{name}.ready.json"
        self.log = folder / f"{name}.log"
        # Orphaned successors become children of this process, so that they can be waited for.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._started = {}  # Popen by pid
        self._pids = []  # all generations
        self.configure(text)
        self._wait_until_ready(0, self.start_successor())

    # The file and the processes.

    def configure(self, text):
        """Replaces the configuration file; nobody is told."""
        beside = self.config.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self.config)

    def start_successor(self):
        """Starts a process with the configuration as it is now; its pid. Waits for nothing."""
        with self.log.open("ab") as log:
            process = subprocess.Popen([*self._prefix, SLUICE, "run", "-c", str(self.config)],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, "SLUICE_READY_FILE": str(self._ready)})
        self._started[process.pid] = process
        self._pids.append(process.pid)
        return process.pid

    def _facts(self):
        return json.loads(self._ready.read_text()) if self._ready.exists() else {"pid": 0}

    def _wait_until_ready(self, predecessor, started=None):
        """Until the ready file is of another process; `started`: of this one, if it is known."""
        def is_new():
            if started and self.is_gone(started):
                raise RuntimeError("Sluice ended:\n" + self.tail())
            return self._facts()["pid"] != predecessor
        try:
            wait_for("a ready file of a new process", is_new, SECONDS_TO_START)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n" + self.tail()) from None
        facts = self._facts()
        self.pid, self.admin = facts["pid"], facts["admin"]
        self.listeners = {one["name"]: one["address"] for one in facts["listeners"]}
        if self.pid not in self._pids:
            self._pids.append(self.pid)

    def is_gone(self, pid):
        if pid in self._started:
            return self._started[pid].poll() is not None
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return state == "Z"

    def status_of(self, pid):
        """Exit status of a process that was started here and is gone."""
        return self._started[pid].returncode

    def wait_until_gone(self, pid, seconds=SECONDS_TO_END):
        wait_for(f"the end of process {pid}", lambda: self.is_gone(pid), seconds)

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def takeover_by_signal(self):
        """SIGUSR2; returns the pid of the process that drains now."""
        predecessor = self.pid
        os.kill(predecessor, signal.SIGUSR2)
        self._wait_until_ready(predecessor)
        return predecessor

    def takeover_by_start(self):
        """A second process on the same takeover_socket; returns as takeover_by_signal does."""
        predecessor = self.pid
        self._wait_until_ready(predecessor, self.start_successor())
        return predecessor

    def memory_kib(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("no VmRSS")

    def cpu_seconds(self):
        """Used until now, in user and kernel."""
        words = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])

    def close(self):
        for pid in self._pids:
            if not self.is_gone(pid):
                os.kill(pid, signal.SIGKILL)
                self.wait_until_gone(pid)

    # The admin API.

    def ask(self, method, path, **query):
        """(status, body); the body as JSON where it is."""
        url = f"http://{self.admin}{path}"
        if query:
            url += "?" + urllib.parse.urlencode(query)
        request = urllib.request.Request(url, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, body, kind = answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            with error:
                status, body, kind = error.code, error.read(), error.headers["Content-Type"]
        return status, json.loads(body) if kind and "json" in kind and body else body.decode()

    def told(self, wanted, method, path, **query):
        """The body of an answer that has the status `wanted`."""
        status, body = self.ask(method, path, **query)
        if status != wanted:
            raise AssertionError(f"{method} {path}: {status} {body}")
        return body

    def drain(self, pool, name, **how):
        """Begins to drain a backend; `how`: window, rate, force."""
        return self.told(202, "POST", f"/backends/{pool}/{name}/drain", **how)

    def backend(self, pool, name):
        return self.told(200, "GET", f"/backends/{pool}/{name}")

    def wait_until_drained(self, pool, name, seconds=SECONDS_TO_END):
        """The state of the backend once its drain is over."""
        def drained():
            state = self.backend(pool, name)
            return state if (state["drain"] or {}).get("state") == "drained" else None
        return wait_for(f"the drain of {pool}/{name}", drained, seconds)

    def undrain(self, pool, name):
        status, body = self.ask("POST", f"/backends/{pool}/{name}/undrain")
        if status not in (200, 202, 204):
            raise AssertionError(f"undrain: {status} {body}")

    def reload(self):
        return self.ask("POST", "/reload")

    def reload_by_signal(self):
        """SIGHUP, and waits until it is dealt with; whether it succeeded."""
        before = {how: self.metric("sluice_reloads_total", result=how)
                  for how in ("success", "failure")}
        os.kill(self.pid, signal.SIGHUP)

        def outcome():
            for how, count in before.items():
                if self.metric("sluice_reloads_total", result=how) > count:
                    return how
            return None
        return wait_for("a reload", outcome) == "success"

    def metric(self, name, **labels):
        """The sum of the series of that name that carry these labels."""
        total = 0.0
        for line in self.told(200, "GET", "/metrics").splitlines():
            found = re.match(rf"{name}(?:\{{(.*)\}})? (\S+)$", line)
            if found:
                has = dict(re.findall(r'(\w+)="([^"]*)"', found.group(1) or ""))
                if labels.items() <= has.items():
                    total += float(found.group(2))
        return total


class LabCase(unittest.TestCase):
    """A test with a folder; what it starts ends with it, the last first."""

    maxDiff = 2000

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-deploy-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.backends = {}

    def start(self, kind, *arguments, **more):
        started = kind(self.folder, *arguments, **more)
        self.addCleanup(started.close)
        return started

    def start_backends(self, names, *options):
        """{name: address} for a pool of new backends."""
        for name in names:
            self.backends[name] = self.start(Backend, name, *options)
        return {name: self.backends[name].address for name in names}

    def start_sluice(self, text, **more):
        self.sluice = self.start(Sluice, text, **more)
        return self.sluice

    def start_client(self, name, *options, listener="plain", **more):
        client = self.start(Client, name, self.sluice.listeners[listener], *options, **more)
        return client

    def sessions(self):
        """What all backends have reported."""
        return [line for backend in self.backends.values() for line in backend.sessions()]

    def reported(self, clients, may_be_missing=False, seconds=10):
        """Incarnations of the clients and sessions of the backends, once every incarnation that
        ended with a CLOSE has its line from a backend: they end a moment later there. Lines of
        backends that were killed may be missing; then only those that the client ended are waited
        for."""
        incarnations = [line for client in clients for line in client.incarnations()]
        wanted = {(line["uid"], line["n"]) for line in incarnations
                  if line.get("close_code", CUT) != CUT
                  and (not may_be_missing or line["by"] == "client")}
        with contextlib.suppress(TimeoutError):  # then the verdict names them
            wait_for("the reports", lambda: wanted <= {(line["uid"], line["n"])
                                                       for line in self.sessions()}, seconds, 0.1)
        return incarnations, self.sessions()

    def note(self, text):
        """A figure for the log: how it went, beyond that it passed."""
        print(f"{self.id().rpartition('.')[2]}: {text}", flush=True)

    def assert_nothing_lost(self, *clients):
        """Of clients that have finished; returns the verdict."""
        verdict = judge(*self.reported(clients))
        self.assertEqual(len(verdict.problems), 0, "; ".join(verdict.problems[:8])
                         + f"\n{verdict.codes}\n" + self.sluice.tail())
        self.note(f"{verdict.incarnations} sessions, closed with {dict(verdict.codes)}, unread "
                  f"{verdict.unread}")
        return verdict


@dataclasses.dataclass
class Verdict:
    incarnations: int = 0
    codes: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # by peers
    failures: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    torn: int = 0
    # What clients had said when they were sent a CLOSE and nobody read any more: no fault.
    unread: int = 0
    problems: list = dataclasses.field(default_factory=list)  # a sentence each


def judge(incarnations, sessions, may_be_missing=False):
    """Joins what clients and backends report by uid and n, and names all that does not fit:
    a message that is missing, doubled, late, torn or of somebody else, in either direction.
    `may_be_missing`: backends were killed, and their lines with them."""
    verdict = Verdict()
    by_identity = {}
    for line in sessions:
        if line["ended"] != "open":
            by_identity.setdefault((line["uid"], line["n"]), []).append(line)
    for one in incarnations:
        if "failure" in one:
            verdict.failures[one["failure"]] += 1
            continue
        verdict.incarnations += 1
        if one["by"] == "peer":
            verdict.codes[one["close_code"]] += 1
        verdict.torn += one["torn"]
        lines = by_identity.get((one["uid"], one["n"]), [])
        verdict.unread += sum(one["sent_last"] - line["received_last"] for line in lines[:1])
        for problem in problems_of(one, lines, may_be_missing):
            verdict.problems.append(f"uid {one['uid']} n {one['n']}: {problem}")
    return verdict


def problems_of(one, lines, may_be_missing):
    """Of one incarnation, and the sessions of backends that go with it."""
    if "violation" in one:
        yield one["violation"]
    for kind in ("gaps", "duplicates", "reordered"):
        if one[kind]:
            yield f"{one[kind]} {kind} at the client ({one['fault']})"
    closed, by_us = one["close_code"] != CUT, one["by"] == "client"
    if by_us and not closed:
        yield f"the CLOSE of the client was not answered: {one['ended']}"
    if closed and not one["clean"]:
        yield f"CLOSE {one['close_code']}, and then the connection ended by {one['ended']}"
    if len(lines) > 1:
        yield "two backends had it"
    if closed and not lines and not (may_be_missing and not by_us):
        yield f"closed with {one['close_code']}, and no backend tells of it"
    for line in lines:
        for kind in ("gaps", "duplicates", "reordered"):
            if line[kind]:
                yield f"{line[kind]} {kind} at {line['backend']}"
        if line["received_count"] != line["received_last"]:
            yield f"{line['backend']} got {line['received_count']} of {line['received_last']}"
        if line["received_last"] > one["sent_last"]:
            yield f"{line['backend']} got more than was sent"
        if line["ended"] not in ("close", "fin", "reset"):
            yield f"{line['backend']}: {line['ended']}"
        if closed and line["sent_last"] != one["received_last"]:
            yield (f"{line['backend']} sent {line['sent_last']}, the client got "
                   f"{one['received_last']}")
        if by_us and one["close_code"] == 1000 and line["received_last"] != one["sent_last"]:
            yield (f"the client sent {one['sent_last']}, {line['backend']} got "
                   f"{line['received_last']}")


def peak_ratio(counts):
    """The highest of equally long bins over their mean."""
    return max(counts) * len(counts) / sum(counts)


def binned(times, width=0.1):
    """How many of the times are in each bin, from the first to the last."""
    first = min(times)
    bins = [0] * (int((max(times) - first) / width) + 1)
    for at in times:
        bins[int((at - first) / width)] += 1
    return bins
