"""Sluice as a process with everything that can be measured, and Prometheus that scrapes it.

The binary is $SLUICE_BIN, or build/release/bin/sluice. Everything is on loopback and on ports that
the system chose; what is started here is ended here.
"""

import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROMETHEUS_DIRECTORY = ROOT / "grafana" / "prometheus"
DASHBOARD = ROOT / "grafana" / "dashboards" / "sluice-overview.json"
SECONDS_TO_START = 30
SECONDS_TO_END = 20


def wait_for(what, condition, seconds):
    """Returns the first true value of condition(); raises TimeoutError when there is none."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen in {seconds} s")
        time.sleep(0.05)
    return value


def fetch(url, data=None):
    with urllib.request.urlopen(url, data=data, timeout=10) as answer:
        return answer.read().decode()


def end_process(process):
    """SIGTERM, then SIGKILL; returns the exit status."""
    process.terminate()
    try:
        return process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def make_certificate(directory):
    """A certificate for localhost that lives a month: (path of the chain, path of the key)."""
    chain, key = directory / "localhost.pem", directory / "localhost.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", chain, "-days", "30", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True)
    return chain, key


class Sluice:
    """`sluice run` with a plain and a TLS listener, and one for PROXY headers, before one pool."""

    def __init__(self, directory, backends):
        """`backends` maps names to addresses; `directory` takes configuration, certificate, log."""
        binary = os.environ.get("SLUICE_BIN", str(ROOT / "build" / "release" / "bin" / "sluice"))
        self.certificate, key = make_certificate(directory)
        config = directory / "sluice.toml"
        config.write_text(self._config(self.certificate, key, backends))
        (directory / "backends.toml").write_text('backends = [{ address = "127.0.0.1:9" }]\n')
        ready = directory / "ready.json"
        self.log = directory / "sluice.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, "run", "-c", str(config)], stdout=log, stderr=log,
                env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        try:
            wait_for("readiness of Sluice", lambda: self._is_ready(ready), SECONDS_TO_START)
        except BaseException:
            end_process(self.process)
            raise
        state = json.loads(ready.read_text())
        self.admin = state["admin"]
        self.listeners = {entry["name"]: entry["address"] for entry in state["listeners"]}

    @staticmethod
    def _config(chain, key, backends):
        rows = "".join(f'  {{ name = "{name}", address = "{address}" }},\n'
                       for name, address in backends.items())
        return f"""
[server]
workers = 2
trusted_proxies = ["127.0.0.1/32"]

[[listener]]
name = "plain"
address = "127.0.0.1:0"

[[listener]]
name = "secure"
address = "127.0.0.1:0"
tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]

[[listener]]
name = "behind"
address = "127.0.0.1:0"
proxy_protocol = true

[[route]]
name = "chat"
path = "/"
pool = "echo"
affinity = ["query:u", "ip"]
learn = {{ json = "sid", from = "/negotiate" }}

[[route]]
name = "checked"
path = "/checked"
pool = "echo"
auth.url = "http://{next(iter(backends.values()))}/"

[[route]]
name = "silent"
path = "/silent"
pool = "echo"
heartbeat.interval = "200ms"

[pool.echo]
backends = [
{rows}]

[[route]]
name = "found"
path = "/found"
pool = "found"

[pool.found]
discover = {{ file = "backends.toml" }}

[drain]
window = "1s"
grace = "2s"

[admin]
address = "127.0.0.1:0"

[log]
access = "off"
"""

    def _is_ready(self, ready):
        if self.process.poll() is not None:
            raise RuntimeError(f"Sluice ended with {self.process.returncode}:\n"
                               + self.log.read_text(errors="replace"))
        return ready.exists()

    def metrics(self):
        return fetch(f"http://{self.admin}/metrics")

    def close(self):
        return end_process(self.process)


class Prometheus:
    """Debian's prometheus on an empty store; scrapes one target each second, runs our rules."""

    def __init__(self, directory, target):
        config = directory / "prometheus.yml"
        config.write_text(f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{PROMETHEUS_DIRECTORY / "rules.yml"}"]
scrape_configs:
  - job_name: sluice
    static_configs:
      - targets: ["{target}"]
""")
        self.log = directory / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}",
                 f"--storage.tsdb.path={directory / 'prometheus'}",
                 "--web.listen-address=127.0.0.1:0"],
                stdout=log, stderr=log, env={**os.environ, "GOMAXPROCS": "1"})
        try:
            port = wait_for("a listening socket of Prometheus", self._listening_port,
                            SECONDS_TO_START)
            self._base = f"http://127.0.0.1:{port}"
            wait_for("readiness of Prometheus", self._is_ready, SECONDS_TO_START)
        except BaseException:
            end_process(self.process)
            raise

    def _listening_port(self):
        """The port that the system chose; Prometheus itself does not tell it."""
        if self.process.poll() is not None:
            raise RuntimeError("Prometheus ended:\n" + self.log.read_text(errors="replace"))
        inodes = set()
        for fd in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                link = os.readlink(fd)
            except FileNotFoundError:
                continue  # closed since it was listed
            if link.startswith("socket:["):
                inodes.add(link[len("socket:["):-1])
        for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            listens = fields[3] == "0A"
            if listens and fields[9] in inodes:
                return int(fields[1].rpartition(":")[2], 16)
        return None

    def _is_ready(self):
        try:
            return "eady" in fetch(f"{self._base}/-/ready")
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path, **parameters):
        """The `data` of an answer of the HTTP API; raises ValueError when it is an error."""
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            answer = json.loads(fetch(f"{self._base}/api/v1/{path}?{query}"))
        except urllib.error.HTTPError as error:
            raise ValueError(f"{path}: {error.read().decode(errors='replace')}") from error
        if answer["status"] != "success":
            raise ValueError(f"{path}: {answer}")
        return answer["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def close(self):
        return end_process(self.process)
