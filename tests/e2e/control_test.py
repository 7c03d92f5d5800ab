#!/usr/bin/python3
"""The subcommands that steer a running Sluice: what they ask, what they print, how they end.

Most talk to an admin interface that is a script of the test's: what a command makes of an answer
must not depend on what a real process happens to do. The last class talks to a real one.
"""

import http.server
import json
import os
import pathlib
import pty
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
FAILED = 1
USAGE = 2
BAD_CONFIGURATION = 78
TOKEN = "0123456789abcdef0123456789abcdef"

GOOD = """
[[listener]]
address = "127.0.0.1:0"

[[route]]
path = "/"
pool = "app"

[pool.app]
backends = [{ name = "app-1", address = "127.0.0.1:9" }]

[admin]
address = "ADDRESS"
"""


def drain(state, total, remaining, eta=3.2):
    return {"state": state, "total": total, "remaining": remaining, "clean": total - remaining,
            "forced": 0, "elapsed_seconds": 1.0, "window_seconds": 30.0, "rate_per_second": 2.5,
            "eta_seconds": eta}


def backend(pool, name, **more):
    return {"pool": pool, "name": name, "address": "10.0.0.1:9000", "weight": 1.0, "healthy": True,
            "draining": False, "open": 3, "drain": None,
            "health": {"state": "up", "last_error": None, "since": 1.7e9}, **more}


class FakeAdmin:
    """Answers from a table; `asked` has what came: method, path, parameters, token."""

    def __init__(self):
        self.answers = {}  # (method, path): a list of (status, document); the last one stays
        self.asked = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                path, _, query = self.path.partition("?")
                fake.asked.append((self.command, path, dict(urllib.parse.parse_qsl(query)),
                                   self.headers.get("Authorization")))
                known = fake.answers.get((self.command, path))
                if known is None:
                    status, document = 404, {"detail": f"There is no {path} here."}
                else:
                    status, document = known.pop(0) if len(known) > 1 else known[0]
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
        self.server.server_close()

    def put(self, method, path, *answers):
        self.answers[(method, path)] = list(answers)


class ControlTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.fake = FakeAdmin()
        self.addCleanup(self.fake.stop)

    def sluice(self, command, *arguments, where=None):
        where = ["--admin", self.fake.address] if where is None else where
        return subprocess.run([SLUICE, command, *where, *arguments], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, timeout=30)

    def succeeds(self, done, output):
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout, output)

    def fails(self, done, status, *wanted):
        """`done` failed with `status` and said each of `wanted` in one sentence."""
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertEqual(done.stdout, "")
        for text in wanted:
            self.assertIn(text, done.stderr)

    def last(self):
        return self.fake.asked[-1][:3]

    # drain, undrain

    def test_drain_asks_for_what_was_said(self):
        self.fake.put("POST", "/backends/chat/chat-1/drain",
                      (202, backend("chat", "chat-1", drain=drain("draining", 9, 9))))
        self.succeeds(self.sluice("drain", "chat/chat-1"),
                      "chat/chat-1 is draining: 9 sessions to close over 30s\n")
        self.assertEqual(self.last(), ("POST", "/backends/chat/chat-1/drain", {}))
        self.sluice("drain", "chat/chat-1", "--window", "90s", "--rate", "2.5", "--force")
        self.assertEqual(self.last()[2], {"window": "90s", "rate": "2.5", "force": "true"})

    def test_names_are_encoded(self):
        self.fake.put("POST", "/backends/chat/%5B%3A%3A1%5D%3A80/undrain",
                      (200, backend("chat", "[::1]:80")))
        self.assertEqual(self.sluice("undrain", "chat/[::1]:80").returncode, 0)

    def test_a_name_alone_is_enough_where_one_pool_has_it(self):
        self.fake.put("GET", "/backends", (200, {"backends": [
            backend("a", "one"), backend("a", "both"), backend("b", "both")]}))
        self.fake.put("POST", "/backends/a/one/undrain", (200, backend("a", "one")))
        self.succeeds(self.sluice("undrain", "one"), "a/one takes new sessions again\n")
        self.fails(self.sluice("undrain", "both"), USAGE, "a/both, b/both")
        self.fails(self.sluice("undrain", "none"), FAILED, '"none"')
        self.fails(self.sluice("undrain", "a/"), USAGE, "POOL/NAME")

    def test_cancel_stops_a_drain(self):
        self.fake.put("DELETE", "/backends/chat/chat-1/drain",
                      (200, backend("chat", "chat-1", drain=drain("cancelled", 9, 4))))
        self.succeeds(self.sluice("drain", "chat/chat-1", "--cancel"),
                      "chat/chat-1 takes new sessions again; 4 sessions stayed\n")
        self.fails(self.sluice("drain", "chat/chat-1", "--cancel", "--wait"), USAGE)

    def test_what_the_server_refuses_is_told(self):
        self.fake.put("POST", "/backends/chat/chat-1/drain",
                      (409, {"detail": "It is the last one.\x1b[31m"}))
        done = self.sluice("drain", "chat/chat-1")
        self.fails(done, FAILED, "It is the last one.?[31m")
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.fake.put("POST", "/backends/chat/chat-1/drain", (500, b"<html>"))
        self.fails(self.sluice("drain", "chat/chat-1"), FAILED, "500")
        self.fake.put("POST", "/backends/chat/chat-1/drain", (202, b"[1]"))
        self.fails(self.sluice("drain", "chat/chat-1"), FAILED, "something else than JSON")

    def test_wrong_values_are_usage_errors(self):
        for arguments in (["--window", "soon"], ["--rate", "0"], ["--rate", "x"], ["--nope"]):
            self.fails(self.sluice("drain", "chat/chat-1", *arguments), USAGE)
        self.fails(self.sluice("drain"), USAGE, "backend")
        self.assertEqual(self.fake.asked, [])

    def test_wait_ends_when_the_backend_is_drained(self):
        path = "/backends/chat/chat-1"
        self.fake.put("POST", path + "/drain",
                      (202, backend("chat", "chat-1", drain=drain("draining", 4, 4))))
        self.fake.put("GET", path,
                      (200, backend("chat", "chat-1", drain=drain("draining", 4, 1))),
                      (200, backend("chat", "chat-1", drain=drain("drained", 4, 0, 0))))
        done = self.sluice("drain", "chat/chat-1", "--wait")
        self.succeeds(done, "chat/chat-1 is drained\n")
        lines = done.stderr.splitlines()
        self.assertEqual(lines[0], "0 % 0 of 4 closed, 2.5/s, about 4s left")
        self.assertEqual(lines[-1], "100 % 4 of 4 closed")
        self.assertNotIn("\r", done.stderr)

    def test_wait_draws_a_bar_on_a_terminal(self):
        path = "/backends/chat/chat-1"
        self.fake.put("POST", path + "/drain",
                      (202, backend("chat", "chat-1", drain=drain("draining", 4, 2))))
        self.fake.put("GET", path, (200, backend("chat", "chat-1", drain=drain("drained", 4, 0))))
        main, end = pty.openpty()
        self.addCleanup(os.close, main)
        process = subprocess.Popen(
            [SLUICE, "drain", "--admin", self.fake.address, "chat/chat-1", "--wait"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=end)
        os.close(end)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        seen = b""
        deadline = time.monotonic() + 15
        while b"4 of 4 closed\x1b[K" not in seen and time.monotonic() < deadline:
            if select.select([main], [], [], 0.1)[0]:
                seen += os.read(main, 4096)
        self.assertRegex(seen, rb"\r\[#+-+\] 50 % 2 of 4 closed, 2.5/s, about 4s left\x1b\[K")
        self.assertRegex(seen, rb"\r\[#+\] 100 % 4 of 4 closed\x1b\[K")
        self.assertEqual(process.wait(timeout=15), 0)

    def test_wait_ends_when_the_drain_is_cancelled(self):
        path = "/backends/chat/chat-1"
        self.fake.put("POST", path + "/drain",
                      (202, backend("chat", "chat-1", drain=drain("draining", 4, 4))))
        self.fake.put("GET", path,
                      (200, backend("chat", "chat-1", drain=drain("cancelled", 4, 3))))
        self.fails(self.sluice("drain", "chat/chat-1", "--wait"), FAILED, "was cancelled")

    def start_waiting(self):
        path = "/backends/chat/chat-1"
        self.fake.put("POST", path + "/drain",
                      (202, backend("chat", "chat-1", drain=drain("draining", 4, 4))))
        self.fake.put("GET", path, (200, backend("chat", "chat-1", drain=drain("draining", 4, 3))))
        process = subprocess.Popen(
            [SLUICE, "drain", "--admin", self.fake.address, "chat/chat-1", "--wait"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 15
        while len(self.fake.asked) < 3:
            self.assertLess(time.monotonic(), deadline, "does not ask")
            time.sleep(0.01)
        return process

    def test_interrupting_the_wait_leaves_the_drain_alone(self):
        process = self.start_waiting()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=15)
        self.assertEqual((process.returncode, output), (FAILED, ""))
        self.assertIn("goes on", errors)
        self.assertNotIn("DELETE", [one[0] for one in self.fake.asked])

    def test_wait_ends_when_the_server_goes_away(self):
        process = self.start_waiting()
        self.fake.stop()
        _, errors = process.communicate(timeout=15)
        self.assertEqual(process.returncode, FAILED)
        self.assertIn("not known", errors)

    # kick, sessions

    def test_kick_closes_one_session(self):
        self.fake.put("DELETE", "/sessions/17", (200, {"kicked": 1}))
        self.succeeds(self.sluice("kick", "17", "--code", "4001", "--reason", "bye & co"),
                      "closing 1 session\n")
        self.assertEqual(self.last()[2], {"code": "4001", "reason": "bye & co"})

    def test_kick_closes_what_matches(self):
        self.fake.put("DELETE", "/sessions", (200, {"kicked": 12}))
        self.succeeds(self.sluice("kick", "--backend", "chat/chat-1", "--route", "*/", "--affinity",
                                  "a+b", "--client-ip", "10.0.0.1"), "closing 12 sessions\n")
        self.assertEqual(self.last()[2], {"backend": "chat/chat-1", "route": "*/",
                                          "affinity": "a+b", "client_ip": "10.0.0.1"})

    def test_kick_never_means_all_by_omission(self):
        self.fails(self.sluice("kick"), USAGE, "which sessions")
        self.fails(self.sluice("kick", "--code", "1000"), USAGE, "which sessions")
        self.fails(self.sluice("kick", "5", "--route", "x"), USAGE, "which sessions")
        self.fails(self.sluice("kick", "x"), USAGE)
        self.fails(self.sluice("kick", "5", "--code", "999"), USAGE)
        self.assertEqual(self.fake.asked, [])

    def test_sessions_are_a_table(self):
        one = {"id": 17, "client": "10.0.0.7:5", "client_ip": "10.0.0.7", "listener": "web",
               "route": "*/", "pool": "chat", "backend": "chat-1", "age_seconds": 62.0,
               "bytes_in": 10, "bytes_out": 2048, "messages_in": 1, "messages_out": 2,
               "state": "open"}
        self.fake.put("GET", "/sessions", (200, {"matching": 5, "sessions": [one]}))
        done = self.sluice("sessions", "--route", "*/", "--limit", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        title, line = done.stdout.splitlines()
        self.assertEqual(title.split()[:4], ["ID", "CLIENT", "ROUTE", "BACKEND"])
        self.assertEqual(line.split(), ["17", "10.0.0.7", "*/", "chat/chat-1", "1m", "2s", "1",
                                        "10", "B", "2", "2.0", "KiB", "open"])
        self.assertIn("1 of 5 sessions", done.stderr)
        self.assertEqual(self.last()[2], {"route": "*/", "limit": "1"})

    def test_odd_answers_are_no_reason_to_fall_over(self):
        self.fake.put("GET", "/sessions", (200, {"matching": "x", "sessions": [1, {"id": []}]}))
        self.assertEqual(self.sluice("sessions").returncode, 0)
        self.fake.put("GET", "/status", (200, {"version": 5, "pid": -1, "uptime_seconds": 1e300,
                                               "config_loaded_at": -1e300}))
        self.fake.put("GET", "/backends", (200, {"backends": {"a": 1}}))
        self.assertEqual(self.sluice("status").returncode, 0)

    # reload, status

    def test_reload_tells_warnings(self):
        self.fake.put("POST", "/reload", (200, {"warnings": ["a.toml:3: x: is not acted on"]}))
        done = self.sluice("reload")
        self.succeeds(done, "reloaded\n")
        self.assertEqual(done.stderr, "warning: a.toml:3: x: is not acted on\n")

    def test_reload_tells_all_mistakes(self):
        self.fake.put("POST", "/reload", (422, {"detail": "Nothing has changed.",
                                                "mistakes": ["a.toml:1: one", "a.toml:2: two"]}))
        self.fails(self.sluice("reload"), BAD_CONFIGURATION, "a.toml:1: one\na.toml:2: two\n",
                   "Nothing has changed.")
        self.fake.put("POST", "/reload", (503, {"detail": "Draining."}))
        self.fails(self.sluice("reload"), FAILED, "Draining.")

    def test_status_is_a_summary(self):
        self.fake.put("GET", "/status", (200, {
            "version": "1.2.3", "pid": 42, "uptime_seconds": 90061.0, "workers": 2,
            "connections": 7, "max_connections": 1000, "sessions": 5, "draining": False,
            "drain_remaining": 0, "taken_over_from": 41, "config_loaded_at": 1.7e9}))
        self.fake.put("GET", "/backends", (200, {"backends": [
            backend("chat", "chat-1"),
            backend("chat", "chat-2", healthy=False, draining=True, weight=2.5,
                    drain=drain("draining", 4, 1),
                    health={"state": "down", "last_error": "no pong in time", "since": 1.7e9}),
            backend("chat", "chat-3", health={"state": "ejected", "since": 1.7e9, "last_error":
                                              "5 failures in a row, the last one: reset"})]}))
        done = self.sluice("status")
        self.assertEqual(done.returncode, 0, done.stderr)
        for text in ("sluice 1.2.3, pid 42, up 1d 1h, serving", "took over from pid 41",
                     "7 of at most 1000 connections, 5 sessions", "2 workers"):
            self.assertIn(text, done.stdout)
        rows = [line.split() for line in done.stdout.splitlines() if line.startswith("chat/")]
        self.assertEqual(rows[0], ["chat/chat-1", "10.0.0.1:9000", "1", "up", "serving", "3"])
        self.assertEqual(rows[1][:8], ["chat/chat-2", "10.0.0.1:9000", "2.5", "down", "draining",
                                       "3", "75", "%"])
        self.assertEqual(rows[1][-4:], ["no", "pong", "in", "time"])
        self.assertEqual(rows[2][3:9], ["ejected", "serving", "3", "5", "failures", "in"])

    def test_json_is_what_the_server_said(self):
        document = backend("chat", "chat-1")
        self.fake.put("POST", "/backends/chat/chat-1/undrain", (200, document))
        done = self.sluice("undrain", "chat/chat-1", "--json")
        self.assertEqual(json.loads(done.stdout), document)
        self.fake.put("GET", "/status", (200, {"version": "1"}))
        self.fake.put("GET", "/backends", (200, {"backends": []}))
        self.assertEqual(json.loads(self.sluice("status", "--json").stdout),
                         {"status": {"version": "1"}, "backends": []})

    # where to ask

    def test_the_configuration_names_address_and_token(self):
        (self.folder / "admin.token").write_text(TOKEN + "\n")
        config = self.folder / "sluice.toml"
        config.write_text(GOOD.replace("ADDRESS", "0.0.0.0:" + self.fake.address.split(":")[1])
                          + 'token_file = "admin.token"\n')
        self.fake.put("POST", "/reload", (200, {"warnings": []}))
        self.succeeds(self.sluice("reload", where=["-c", str(config)]), "reloaded\n")
        self.assertEqual(self.fake.asked[-1][3], "Bearer " + TOKEN)

    def test_a_token_file_of_its_own(self):
        token = self.folder / "t"
        token.write_text(TOKEN)
        self.fake.put("POST", "/reload", (200, {"warnings": []}))
        self.sluice("reload", "--token-file", str(token))
        self.assertEqual(self.fake.asked[-1][3], "Bearer " + TOKEN)
        token.write_text("short")
        done = self.sluice("reload", "--token-file", str(token))
        self.fails(done, USAGE, "--token-file")
        self.assertNotIn("short", done.stderr)

    def test_places_that_cannot_be_asked(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            free = f"127.0.0.1:{taken.getsockname()[1]}"
        self.fails(self.sluice("reload", where=["--admin", free]), FAILED, free, "refused")
        self.fails(self.sluice("reload", where=["--admin", "nonsense"]), USAGE, "--admin")
        self.fails(self.sluice("reload", where=["-c", "/none.toml"]), BAD_CONFIGURATION,
                   "/none.toml")
        self.fails(self.sluice("reload", where=["-c", "/none.toml", "--admin", free]), USAGE)
        config = self.folder / "sluice.toml"
        config.write_text(GOOD.replace("ADDRESS", "off"))
        self.fails(self.sluice("status", where=["-c", str(config)]), BAD_CONFIGURATION, "off")

    def test_health_is_what_the_server_says(self):
        self.fake.put("GET", "/readyz", (200, b"ready\n"))
        self.succeeds(self.sluice("healthcheck"), "ready\n")
        self.fake.put("GET", "/readyz", (503, b"draining\n"))
        done = self.sluice("healthcheck")
        self.assertEqual((done.returncode, done.stdout), (FAILED, "not ready\n"))
        self.fake.put("GET", "/readyz", (401, {"detail": "It wants a token."}))
        self.fails(self.sluice("healthcheck"), FAILED, "It wants a token.")

    def test_every_command_is_in_the_help(self):
        done = subprocess.run([SLUICE, "--help"], capture_output=True, text=True, check=False)
        wrong = subprocess.run([SLUICE, "stauts"], capture_output=True, text=True, check=False)
        for command in ("run", "check", "demo", "echo", "healthcheck", "status", "sessions",
                        "drain", "undrain", "kick", "reload", "version"):
            self.assertIn(f"\n  {command} ", done.stdout)
            self.assertIn(command, wrong.stderr)
        self.assertEqual(wrong.returncode, USAGE)


class RealAdminTest(unittest.TestCase):
    """A real process behind a token and TLS, as an address beyond loopback has them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "admin.token").write_text(TOKEN + "\n")
        self.certificate()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.config = self.folder / "sluice.toml"
        self.config.write_text(GOOD.replace("ADDRESS", f"0.0.0.0:{self.port}") + """
token_file = "admin.token"
tls.certificates = [{ chain = "admin.pem", key = "admin.key" }]
""")

    def certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                        "/CN=admin.example.com", "-addext",
                        "subjectAltName=DNS:admin.example.com,DNS:localhost", "-keyout",
                        str(self.folder / "admin.key"), "-out", str(self.folder / "admin.pem")],
                       check=True, capture_output=True)

    def start(self):
        ready = self.folder / "ready.json"
        process = subprocess.Popen([SLUICE, "run", "-c", str(self.config)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE,
                                   env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 15
        while not ready.exists():
            self.assertIsNone(process.poll(), "ended before it served")
            self.assertLess(time.monotonic(), deadline, "does not serve")
            time.sleep(0.01)
        return process

    def sluice(self, *arguments):
        return subprocess.run([SLUICE, *arguments], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=30)

    def test_only_who_has_token_and_certificate_gets_in(self):
        process = self.start()
        config = str(self.config)
        address = f"localhost:{self.port}"
        token = ["--token-file", str(self.folder / "admin.token")]
        ca = ["--ca", str(self.folder / "admin.pem")]
        good = [["-c", config], ["--admin", address, *token, *ca],
                ["--admin", "https://" + address, *token, *ca]]
        for where in good:
            done = self.sluice("healthcheck", *where)
            self.assertEqual((done.returncode, done.stdout), (0, "ready\n"), done.stderr)
        for where, why in ((["--admin", address, *ca], "token"),
                           (["--admin", address, *token], "closed without an answer"),
                           (["--admin", "https://" + address, *token], "not to be trusted"),
                           (["--admin", f"127.0.0.1:{self.port}", *token, *ca], "mismatch")):
            done = self.sluice("healthcheck", *where)
            self.assertEqual(done.returncode, FAILED, done.stdout)
            self.assertIn(why, done.stderr)
        done = self.sluice("status", "-c", config)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"pid {process.pid}", done.stdout)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=15), 0)
        log = process.stderr.read().decode()
        self.assertNotIn(TOKEN, log)
        self.assertIn("admin refused", log)

    def test_check_looks_into_the_admin_certificate(self):
        done = self.sluice("check", str(self.config))
        self.assertEqual(done.returncode, 0, done.stderr)
        (self.folder / "admin.pem").write_text("nonsense")
        done = self.sluice("check", str(self.config))
        self.assertEqual(done.returncode, BAD_CONFIGURATION)
        self.assertRegex(done.stderr, r"sluice\.toml:\d+: admin\.tls\.certificates: ")
        self.certificate()
        (self.folder / "admin.token").write_text("short")
        done = self.sluice("check", str(self.config))
        self.assertEqual(done.returncode, BAD_CONFIGURATION)
        self.assertIn("admin.token_file", done.stderr)
        self.assertNotIn('"short"', done.stderr)


if __name__ == "__main__":
    unittest.main()
