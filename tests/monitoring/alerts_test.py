"""Proves the alert rules, the scrape configuration and the text that Sluice exports with Debian's
promtool, and that docs/METRICS.md names every metric and every alert.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import monitored_sluice  # noqa: E402
import promql  # noqa: E402
import websocket_traffic  # noqa: E402

RULES = monitored_sluice.PROMETHEUS_DIRECTORY / "rules.yml"
CASES = monitored_sluice.PROMETHEUS_DIRECTORY / "rules_test.yml"
SCRAPE = monitored_sluice.PROMETHEUS_DIRECTORY / "prometheus.yml"
PAGE = monitored_sluice.ROOT / "docs" / "METRICS.md"
PROVISIONING = monitored_sluice.ROOT / "grafana" / "provisioning"


def promtool(*arguments, text=None):
    return subprocess.run(["promtool", *map(str, arguments)], input=text, capture_output=True,
                          text=True)


class RulesTest(unittest.TestCase):
    def _expect_clean(self, *arguments):
        check = promtool(*arguments)
        self.assertEqual(check.returncode, 0, check.stdout + check.stderr)

    def test_rules_are_valid(self):
        self._expect_clean("check", "rules", RULES)

    def test_scrape_configuration_is_valid(self):
        self._expect_clean("check", "config", SCRAPE)

    def test_alerts_fire_and_are_quiet_as_they_should(self):
        self._expect_clean("test", "rules", CASES)

    def test_every_alert_has_a_case_of_each_kind(self):
        alerts = set(promql.rule_expressions(RULES.read_text()))
        self.assertGreater(len(alerts), 10)
        cases = CASES.read_text().split("  - name: ")[1:]
        fires = {re.search(r"alertname: (\w+)", case).group(1)
                 for case in cases if "exp_labels:" in case}
        quiet = {re.search(r"alertname: (\w+)", case).group(1)
                 for case in cases if "exp_alerts: []" in case}
        self.assertEqual(fires, alerts)
        self.assertEqual(quiet, alerts)

    def test_every_alert_is_described(self):
        blocks = RULES.read_text().split("- alert: ")[1:]
        for block in blocks:
            with self.subTest(block.split("\n", 1)[0]):
                self.assertRegex(block, r"severity: (warning|critical)\b")
                self.assertRegex(block, r'summary: ".+"')
                self.assertRegex(block, r'description: ".+"')

    def test_grafana_finds_what_is_provisioned(self):
        source = (PROVISIONING / "datasources" / "prometheus.yml").read_text()
        self.assertIn("uid: prometheus", source)
        self.assertRegex(source, r"type: prometheus\b")
        provider = (PROVISIONING / "dashboards" / "sluice.yml").read_text()
        path = re.search(r"path: (\S+)", provider).group(1)
        compose = (monitored_sluice.ROOT / "docker" / "compose.yaml").read_text()
        self.assertIn(f"../grafana/dashboards:{path}:", compose)


class ExportedTextTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="sluice-monitoring-")
        cls.addClassCleanup(directory.cleanup)
        backend = websocket_traffic.EchoBackend()
        cls.addClassCleanup(backend.close)
        cls.sluice = monitored_sluice.Sluice(pathlib.Path(directory.name),
                                             {"echo-1": backend.address})
        cls.addClassCleanup(cls.sluice.close)
        cls.at_start = cls.sluice.metrics()

    def test_promtool_finds_nothing_to_complain_of(self):
        client = websocket_traffic.WebSocketClient(self.sluice.listeners["plain"], "key")
        client.echo(websocket_traffic.TEXT, b"counted")
        client.close()
        for name, text in (("at start", self.at_start), ("after a session", self.sluice.metrics())):
            with self.subTest(name):
                check = promtool("check", "metrics", text=text)
                self.assertEqual((check.returncode, check.stdout + check.stderr), (0, ""))

    def test_series_of_the_dashboard_are_there_from_the_start(self):
        types = promql.family_types(self.at_start)
        dashboard = json.loads(monitored_sluice.DASHBOARD.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                for series in promql.series_names(target["expr"]):
                    family = promql.family_of(series, types)
                    self.assertIsNotNone(family, series)
                    self.assertRegex(self.at_start, rf"(?m)^{series}[{{ ]", panel["title"])

    def test_nothing_is_counted_before_anything_happens(self):
        counted = re.findall(
            r"(?m)^(?!process_|sluice_loop_|sluice_reloads_|sluice_discovery_)\S+(?:_total|_count)(?:\{.*\})? "
            r"(?!0$)\S+$", self.at_start)
        self.assertEqual(counted, [])

    def test_the_page_about_metrics_names_every_family_and_no_other(self):
        page = PAGE.read_text()
        named = set(re.findall(r"^\| `((?:sluice|process)_\w+)`", page, re.MULTILINE))
        self.assertEqual(named, set(promql.family_types(self.at_start)))

    def test_the_page_about_metrics_gives_every_type(self):
        rows = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))
        for family, kind in promql.family_types(self.at_start).items():
            self.assertEqual(rows.get(family), kind, family)

    def test_the_page_about_metrics_names_every_alert(self):
        named = set(re.findall(r"^\| `(Sluice\w+)`", PAGE.read_text(), re.MULTILINE))
        self.assertEqual(named, set(promql.rule_expressions(RULES.read_text())))


if __name__ == "__main__":
    unittest.main()
