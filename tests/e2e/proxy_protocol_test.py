#!/usr/bin/python3
"""curl in front of Sluice and a backend behind it: PROXY headers that somebody else has written,
before plain requests and before TLS."""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))

CONFIGURATION = """
[server]
trusted_proxies = ["127.0.0.1/32"]

[[listener]]
name = "plain"
address = "127.0.0.1:0"
proxy_protocol = true

[[listener]]
name = "secure"
address = "127.0.0.1:0"
proxy_protocol = true
tls.certificates = [{{ chain = "localhost.pem", key = "localhost.key" }}]

[[route]]
pool = "python"

[pool.python]
backends = [{{ address = "127.0.0.1:{port}" }}]

[admin]
address = "127.0.0.1:0"
"""


class Backend(http.server.BaseHTTPRequestHandler):
    """Answers with the forwarding fields that it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"for": self.headers["X-Forwarded-For"],
                           "proto": self.headers["X-Forwarded-Proto"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class CurlTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        cls.addClassCleanup(cls.backend.server_close)
        threading.Thread(target=cls.backend.serve_forever, daemon=True).start()
        cls.addClassCleanup(cls.backend.shutdown)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", cls.folder / "localhost.key", "-out",
             cls.folder / "localhost.pem", "-days", "2", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True)
        config = cls.folder / "sluice.toml"
        config.write_text(CONFIGURATION.format(port=cls.backend.server_port))
        ready = cls.folder / "ready.json"
        with open(cls.folder / "access.log", "wb") as log:
            cls.sluice = subprocess.Popen([SLUICE, "run", "-c", str(config)], stdout=log,
                                          env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        cls.addClassCleanup(cls._end)
        deadline = time.monotonic() + 10
        while not ready.exists():
            if cls.sluice.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("sluice does not start")
            time.sleep(0.01)
        state = json.loads(ready.read_text())
        cls.listeners = {entry["name"]: entry["address"] for entry in state["listeners"]}

    @classmethod
    def _end(cls):
        cls.sluice.send_signal(signal.SIGTERM)
        try:
            cls.sluice.wait(timeout=15)
        finally:
            cls.sluice.kill()

    def curl(self, url, *options):
        return subprocess.run(
            ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10", "--cacert",
             self.folder / "localhost.pem", *options, url], capture_output=True, check=False)

    def test_header_before_a_plain_request(self):
        got = self.curl(f"http://{self.listeners['plain']}/", "--haproxy-protocol")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(json.loads(got.stdout), {"for": "127.0.0.1", "proto": "http"})

    def test_header_before_tls(self):
        got = self.curl(f"https://{self.listeners['secure']}/", "--haproxy-protocol")
        self.assertEqual(got.returncode, 0, got.stderr)
        self.assertEqual(json.loads(got.stdout), {"for": "127.0.0.1", "proto": "https"})

    def test_nothing_without_a_header(self):
        for url in (f"http://{self.listeners['plain']}/", f"https://{self.listeners['secure']}/"):
            got = self.curl(url)
            self.assertNotEqual(got.returncode, 0)
            self.assertEqual(got.stdout, b"")

    def test_the_log_names_both_ends(self):
        def lines():
            log = (self.folder / "access.log").read_text()
            return [json.loads(line) for line in log.splitlines() if '"/log-me"' in line]

        self.curl(f"http://{self.listeners['plain']}/log-me", "--haproxy-protocol")
        deadline = time.monotonic() + 10
        while not lines() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(len(lines()), 1)
        line = lines()[0]
        # curl says that the client is its own end, so the two are the same.
        self.assertEqual(line["proxy"], f"{line['client_ip']}:{line['client_port']}")


if __name__ == "__main__":
    unittest.main()
