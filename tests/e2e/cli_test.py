#!/usr/bin/python3
"""The command line: what each command answers, with which exit status, to good and to bad input."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
USAGE = 2
BAD_CONFIGURATION = 78

GOOD = """
[[listener]]
address = "127.0.0.1:0"

[[route]]
path = "/"
pool = "app"

[pool.app]
backends = [{ name = "app-1", address = "127.0.0.1:9" }]

[admin]
address = "127.0.0.1:0"
"""


def sluice(*arguments):
    return subprocess.run([SLUICE, *arguments], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, timeout=20)


class CliTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def write(self, text, name="sluice.toml"):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def refused(self, done, status, *wanted):
        """`done` failed with `status` and said each of `wanted` on standard error, briefly."""
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        for text in wanted:
            self.assertIn(text, done.stderr)
        self.assertLessEqual(len(done.stderr.splitlines()), 5, done.stderr)

    def start(self, config):
        ready = self.folder / "ready.json"
        process = subprocess.Popen([SLUICE, "run", "-c", config], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "SLUICE_READY_FILE": str(ready)})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + 10
        while not ready.exists():
            self.assertIsNone(process.poll(), "ended before it served")
            self.assertLess(time.monotonic(), deadline, "does not serve")
            time.sleep(0.01)
        return process, json.loads(ready.read_text())

    def test_version(self):
        done = sluice("version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^sluice \d+\.\d+\.\d+")

    def test_help_goes_to_standard_output(self):
        done = sluice("--help")
        self.assertEqual(done.returncode, 0)
        for command in ("run", "check", "demo", "healthcheck", "version"):
            self.assertIn(command, done.stdout)

    def test_unknown_flag_and_unknown_command_are_usage_errors(self):
        self.refused(sluice("run", "--no-such-flag"), USAGE, "no-such-flag")
        self.refused(sluice("no-such-command"), USAGE, "no-such-command")

    def test_check_accepts_a_good_file_either_way(self):
        good = self.write(GOOD)
        self.assertEqual(sluice("check", "-c", good).returncode, 0)
        self.assertEqual(sluice("check", good).returncode, 0)

    def test_missing_configuration(self):
        path = str(self.folder / "absent.toml")
        for command in ("run", "check"):
            self.refused(sluice(command, "-c", path), BAD_CONFIGURATION, "absent.toml")

    def test_mistakes_name_file_line_and_key(self):
        cases = {
            "unknown key": (GOOD + "[drain]\nwindo = '1s'\n", "windo"),
            "not TOML": (GOOD + "[drain\n", "sluice.toml"),
            "unknown pool": (GOOD.replace('pool = "app"', 'pool = "nope"'), "nope"),
            "no backends": (GOOD.replace("{ name = \"app-1\", address = \"127.0.0.1:9\" }", ""),
                            "backends"),
            "duplicate backend": (GOOD.replace(
                "backends = [", 'backends = [{ name = "app-1", address = "127.0.0.1:8" }, '),
                "app-1"),
            "impossible value": (GOOD + "[drain]\nclose_code = 1000\n", "close_code"),
        }
        for name, (text, wanted) in cases.items():
            with self.subTest(name):
                for command in ("check", "run"):
                    done = sluice(command, "-c", self.write(text))
                    self.refused(done, BAD_CONFIGURATION, wanted)
                    self.assertRegex(done.stderr, r"sluice\.toml:\d+")

    def test_all_mistakes_are_told_at_once(self):
        done = sluice("check", "-c", self.write(GOOD + "[drain]\nwindo = '1s'\ngrace = 3\n"))
        self.refused(done, BAD_CONFIGURATION, "windo", "grace")

    def test_a_key_that_does_not_fit_its_certificate(self):
        for name in ("one", "two"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                            "/CN=localhost", "-keyout", str(self.folder / f"{name}.key"), "-out",
                            str(self.folder / f"{name}.pem")], check=True, capture_output=True)
        line = 'address = "127.0.0.1:0"\n\n[[route]]'
        tls = line.replace("\n\n", '\ntls.certificates = [{{ chain = "{}", key = "{}" }}]\n\n')
        for chain, key, status in (("one.pem", "one.key", 0),
                                   ("one.pem", "two.key", BAD_CONFIGURATION),
                                   ("one.pem", "absent.key", BAD_CONFIGURATION)):
            with self.subTest(chain=chain, key=key):
                done = sluice("check", "-c", self.write(GOOD.replace(line, tls.format(chain, key))))
                self.assertEqual(done.returncode, status, done.stderr)
                if status:
                    self.assertIn(key, done.stderr)

    def test_a_port_in_use_starts_nothing(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            done = sluice("run", "-c", self.write(
                GOOD.replace('address = "127.0.0.1:0"\n\n[[route]]',
                             f'address = "{address}"\n\n[[route]]')))
        self.assertIn(done.returncode, (1, BAD_CONFIGURATION))
        self.assertIn(address, done.stderr)

    def test_healthcheck_tells_a_serving_process_from_none(self):
        process, facts = self.start(self.write(GOOD))
        self.assertEqual(sluice("healthcheck", "--admin", facts["admin"]).returncode, 0)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=15), 0)
        self.assertEqual(sluice("healthcheck", "--admin", facts["admin"]).returncode, 1)

    def test_the_ready_file_tells_the_addresses_that_were_bound(self):
        process, facts = self.start(self.write(GOOD))
        self.assertEqual(facts["pid"], process.pid)
        [listener] = facts["listeners"]
        self.assertFalse(listener["tls"])
        host, port = listener["address"].split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            pass


if __name__ == "__main__":
    unittest.main()
