#!/usr/bin/python3
"""Every sample configuration is accepted by `sluice check` and fits the JSON Schema for editors."""

import os
import pathlib
import platform
import re
import subprocess
import tempfile
import tomllib
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
SCHEMA = ROOT / "config" / "sluice.schema.json"
SAMPLES = sorted((ROOT / "config").glob("*.toml")) + [ROOT / "docker" / "sluice.toml"]
MODULES = ROOT / "tests" / "e2e" / "node_modules"
ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "unknown")


def taplo(*arguments):
    node = MODULES / f"node-linux-{ARCHITECTURE}" / "bin" / "node"
    return subprocess.run([str(node), str(MODULES / "@taplo/cli/dist/cli.js"), *arguments],
                          cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def check_schema(*paths):
    return taplo("check", "--no-auto-config", "--schema", SCHEMA.as_uri(), *map(str, paths))


def completed(block):
    """A piece of configuration from a page, with what it leaves out: listener, pools, backends."""
    facts = tomllib.loads(block)
    pools = facts.get("pool", {})
    wanted = {route["pool"] for route in facts.get("route", [])} | pools.keys()
    for name in wanted:
        if name not in pools:
            block += f"\n[pool.{name}]\n"
        if "backends" not in pools.get(name, {}):
            block = block.replace(f"[pool.{name}]\n",
                                  f'[pool.{name}]\nbackends = [{{ address = "127.0.0.1:9001" }}]\n')
    if "route" not in facts:
        block += "".join(f'\n[[route]]\npath = "/{name}"\npool = "{name}"\n' for name in wanted)
    return block + '\n[[listener]]\naddress = "127.0.0.1:8080"\n'


class ConfigSamplesTest(unittest.TestCase):
    def test_the_promised_samples_are_there(self):
        names = {path.name for path in SAMPLES}
        self.assertLessEqual({"sluice.toml", "minimal.toml", "socket-io.toml", "signalr.toml"},
                             names)

    def test_sluice_check_accepts_each(self):
        for path in SAMPLES:
            with self.subTest(sample=path.name):
                done = subprocess.run([SLUICE, "check", "-c", str(path)], cwd=ROOT,
                                      capture_output=True, text=True, check=False, timeout=30)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_sluice_check_accepts_what_the_page_of_ecosystems_shows(self):
        page = (ROOT / "docs" / "ECOSYSTEMS.md").read_text()
        blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        self.assertGreaterEqual(len(blocks), 9)
        for block in blocks:
            with self.subTest(block=block), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "sluice.toml"
                path.write_text(completed(block))
                done = subprocess.run([SLUICE, "check", "-c", str(path)], capture_output=True,
                                      text=True, check=False, timeout=30)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertEqual(done.stderr, "", "a warning")

    def test_each_fits_the_schema(self):
        done = check_schema(*SAMPLES)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_schema_refuses_an_unknown_key_and_a_wrong_type(self):
        good = (ROOT / "config" / "minimal.toml").read_text()
        for bad in ('\n[drain]\nwindo = "30s"\n', "\n[drain]\nwindow = true\n"):
            with self.subTest(bad=bad), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "bad.toml"
                path.write_text(good + bad)
                done = check_schema(path)
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
