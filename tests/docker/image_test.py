#!/usr/bin/python3
"""docker/Dockerfile fits the binary that is built from this checkout."""

import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SLUICE = os.environ.get("SLUICE_BIN", str(ROOT / "build/release/bin/sluice"))
# Part of every Debian image that has apt.
IN_THE_BASE = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class ImageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = (ROOT / "docker" / "Dockerfile").read_text()
        cls.final = cls.text.split("\nFROM ")[-1]

    def test_installs_exactly_the_packages_of_the_linked_libraries(self):
        needed = re.findall(r"NEEDED\s+(\S+)", run("objdump", "-p", SLUICE))
        paths = {line.split()[0]: line.split()[2] for line in run("ldd", SLUICE).splitlines()
                 if " => /" in line}
        packages = set()
        for name in needed:
            if name.startswith("ld-linux"):
                continue
            # dpkg knows files by their path from before /lib became a link to /usr/lib, or after.
            path = os.path.realpath(paths[name])
            for candidate in (path, path.removeprefix("/usr")):
                found = subprocess.run(["dpkg", "-S", candidate], capture_output=True, text=True,
                                       check=False)
                if found.returncode == 0:
                    packages.add(found.stdout.split(":")[0])
                    break
            else:
                self.fail(f"no package owns {path}")
        installed = re.search(r"install -y --no-install-recommends (.*?)&& rm", self.final, re.S)
        self.assertEqual(set(installed.group(1).replace("\\", "").split()),
                         packages - IN_THE_BASE)

    def test_runs_without_root_and_stops_by_draining(self):
        self.assertRegex(self.final, r"(?m)^USER 10001:10001$")
        self.assertRegex(self.final, r"(?m)^STOPSIGNAL SIGTERM$")

    def test_commands_need_no_shell(self):
        for instruction in ("ENTRYPOINT", "CMD"):
            self.assertRegex(self.final, rf'(?m)^{instruction} \["')
        self.assertIn('CMD ["sluice", "healthcheck"]', self.final)

    def test_the_build_context_holds_what_a_build_reads(self):
        kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
                if line.startswith("!")}
        self.assertEqual(kept, {"CMakeLists.txt", "CMakePresets.json", "dev", "proxy"})
        for name in kept:
            self.assertTrue((ROOT / name).exists(), name)


if __name__ == "__main__":
    unittest.main()
