#!/usr/bin/python3
"""docker/compose.yaml and docker/sluice.toml say what they promise, and belong together."""

import pathlib
import re
import subprocess
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"


def seconds(text):
    """The duration '1m30s', '60s' or '20s' in seconds."""
    parts = re.findall(r"(\d+)([hms])", str(text))
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


class ComposeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Not the file itself: what docker-compose makes of it, anchors and defaults applied.
        done = subprocess.run(["docker-compose", "-f", str(COMPOSE), "config"],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(done.stderr)
        cls.services = yaml.safe_load(done.stdout)["services"]
        cls.sluice = cls.services["sluice"]
        cls.settings = (ROOT / "docker" / "sluice.toml").read_text()

    def setting(self, table, key):
        section = re.search(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", self.settings, re.M | re.S)
        return re.search(rf'^{key} = "(.*?)"', section.group(1), re.M).group(1)

    def test_an_unknown_key_is_refused(self):
        done = subprocess.run(["docker-compose", "-f", "-", "config", "-q"], capture_output=True,
                              input="services: {a: {image: b, no_such_key: 1}}", text=True,
                              check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_has_sluice_three_echo_backends_and_the_monitoring(self):
        self.assertEqual(set(self.services),
                         {"sluice", "echo-1", "echo-2", "echo-3", "prometheus", "grafana"})

    def test_healthcheck_is_the_binary_itself(self):
        self.assertEqual(self.sluice["healthcheck"]["test"], ["CMD", "sluice", "healthcheck"])

    def test_the_drain_ends_before_the_container_is_killed(self):
        drain = (seconds(self.setting("drain", "window")) + seconds(self.setting("drain", "grace")))
        self.assertGreater(drain, 0)
        self.assertGreater(seconds(self.sluice["stop_grace_period"]), drain)
        self.assertEqual(self.sluice["stop_signal"], "SIGTERM")

    def test_file_descriptors_suffice_for_thousands_of_sessions(self):
        limits = self.sluice["ulimits"]["nofile"]
        self.assertGreaterEqual(limits["soft"], 16384)
        self.assertEqual(limits["soft"], limits["hard"])

    def test_every_mounted_file_exists(self):
        mounted = 0
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = (volume.split(":")[0] if isinstance(volume, str)
                          else volume.get("source", ""))
                if source.startswith("/"):
                    mounted += 1
                    self.assertTrue(pathlib.Path(source).exists(), f"{name}: {source}")
        self.assertGreaterEqual(mounted, 4)

    def test_containers_of_ours_have_no_rights_they_do_not_need(self):
        for name in ("sluice", "echo-1", "echo-2", "echo-3"):
            service = self.services[name]
            self.assertTrue(service["read_only"], name)
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertIn("no-new-privileges:true", service["security_opt"], name)
            self.assertNotIn("privileged", service, name)

    def test_the_pool_is_made_of_the_echo_services(self):
        pool = dict(re.findall(r'\{ name = "(.*?)", address = "(.*?)" \}', self.settings))
        commands = {name: service["command"] for name, service in self.services.items()
                    if name.startswith("echo-")}
        self.assertEqual(set(pool), set(commands))
        for name, address in pool.items():
            host, port = address.split(":")
            self.assertEqual(host, name)
            self.assertEqual(commands[name],
                             ["echo", "--listen", f"0.0.0.0:{port}", "--name", name])

    def test_prometheus_reaches_the_admin_listener_on_loopback(self):
        self.assertEqual(self.services["prometheus"]["network_mode"], "service:sluice")
        admin = self.setting("admin", "address")
        self.assertTrue(admin.startswith("127.0.0.1:"))
        scrape = yaml.safe_load(
            (ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
        targets = [target for job in scrape for group in job.get("static_configs", [])
                   for target in group["targets"]]
        self.assertIn(admin.split(":")[1], [target.split(":")[1] for target in targets])
        self.assertTrue(all(target.split(":")[0] in ("127.0.0.1", "localhost")
                            for target in targets), targets)

    def test_grafana_finds_prometheus_and_the_dashboards(self):
        provisioning = ROOT / "grafana" / "provisioning"
        sources = [source for path in (provisioning / "datasources").glob("*.y*ml")
                   for source in yaml.safe_load(path.read_text())["datasources"]]
        # Prometheus is in the network namespace of Sluice, which answers to its name too.
        self.assertIn("prometheus", self.sluice["networks"]["default"]["aliases"])
        self.assertEqual([source["url"] for source in sources], ["http://prometheus:9090"])
        mounted = [volume.split(":")[1] for volume in self.services["grafana"]["volumes"]]
        folders = [provider["options"]["path"]
                   for path in (provisioning / "dashboards").glob("*.y*ml")
                   for provider in yaml.safe_load(path.read_text())["providers"]]
        self.assertTrue(folders)
        for folder in folders:
            self.assertIn(folder, mounted)


if __name__ == "__main__":
    unittest.main()
