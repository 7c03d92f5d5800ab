"""Proves the Grafana dashboard without Grafana: its structure obeys the rules of Grafana's own
dashboard linter, it names no metric that Sluice does not export and leaves none out, and every
query of every panel returns data when a real Prometheus scrapes Sluice under load.
"""

import http.client
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import monitored_sluice  # noqa: E402
import promql  # noqa: E402
import websocket_traffic  # noqa: E402

GRID_COLUMNS = 24
SELECTOR = 'job=~"$job", instance=~"$instance"'
RATE_INTERVAL = "10s"  # what $__rate_interval stands for at a scrape interval of a second
SECONDS_FOR_DATA = 60

# Exported but shown nowhere: the same values under Sluice's own names are on a panel.
NOT_SHOWN = {"process_open_fds", "process_max_fds"}


def load_dashboard():
    return json.loads(monitored_sluice.DASHBOARD.read_text())


def all_panels(dashboard):
    """Every panel but the rows, those inside of collapsed rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def all_expressions(dashboard):
    """(where, expression) of every panel target and every annotation."""
    for panel in all_panels(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]


def is_counter(series):
    return series.endswith(("_total", *promql.HISTOGRAM_PARTS))


class DashboardStructureTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dashboard = load_dashboard()
        cls.panels = list(all_panels(cls.dashboard))
        cls.variables = {v["name"]: v for v in cls.dashboard["templating"]["list"]}

    def test_is_the_classic_model_and_can_be_provisioned(self):
        self.assertEqual(self.dashboard["schemaVersion"], 39)
        self.assertEqual(self.dashboard["uid"], "sluice-overview")
        self.assertIsNone(self.dashboard["id"])
        self.assertNotIn("__inputs", self.dashboard)

    def test_cannot_be_edited_in_place(self):
        self.assertIs(self.dashboard["editable"], False)

    def test_data_source_is_a_variable(self):
        variable = self.variables["datasource"]
        self.assertEqual((variable["type"], variable["query"]), ("datasource", "prometheus"))

    def test_job_and_instance_are_variables(self):
        for name in ("job", "instance"):
            with self.subTest(name):
                variable = self.variables[name]
                self.assertEqual(variable["type"], "query")
                self.assertEqual(variable["label"], name.capitalize())
                self.assertEqual(variable["datasource"]["uid"], "$datasource")
                self.assertTrue(variable["multi"])
                self.assertTrue(variable["includeAll"])
                self.assertEqual(variable["allValue"], ".+")
                self.assertTrue(variable["definition"].startswith("label_values("))

    def test_variables_are_read_again_when_the_time_range_changes(self):
        for variable in self.variables.values():
            if variable["type"] == "query":
                self.assertEqual(variable["refresh"], 2, variable["name"])

    def test_every_panel_says_what_it_shows(self):
        for panel in self.panels:
            with self.subTest(panel.get("title")):
                self.assertTrue(panel["title"].strip())
                self.assertGreater(len(panel["description"]), 15)
                self.assertTrue(panel["description"].endswith("."))

    def test_every_panel_has_a_unit(self):
        for panel in self.panels:
            self.assertTrue(panel["fieldConfig"]["defaults"].get("unit"), panel["title"])

    def test_every_panel_asks_the_data_source_of_the_variable(self):
        for panel in self.panels:
            with self.subTest(panel["title"]):
                self.assertEqual(panel["datasource"]["uid"], "$datasource")
                self.assertGreaterEqual(len(panel["targets"]), 1)
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"]["uid"], "$datasource")

    def test_every_expression_is_valid(self):
        with tempfile.TemporaryDirectory() as directory:
            rules = pathlib.Path(directory) / "rules.json"  # YAML is a superset of JSON
            for where, expression in all_expressions(self.dashboard):
                with self.subTest(where):
                    plain = expression.replace("$__rate_interval", "1m")
                    rules.write_text(json.dumps(
                        {"groups": [{"name": "g", "rules": [{"record": "r", "expr": plain}]}]}))
                    check = subprocess.run(["promtool", "check", "rules", str(rules)],
                                           capture_output=True, text=True)
                    self.assertEqual(check.returncode, 0, check.stderr + expression)

    def test_counters_are_shown_as_rates_over_the_rate_interval(self):
        for where, expression in all_expressions(self.dashboard):
            with self.subTest(where):
                for series in filter(is_counter, promql.series_names(expression)):
                    for use in re.finditer(rf"\b{series}\b", expression):
                        before = expression[: use.start()]
                        after = expression[use.end():]
                        self.assertRegex(before, r"\b(rate|increase)\($")
                        self.assertRegex(after, r"^\{[^}]*\}\[\$__rate_interval\]\)")

    def test_every_selector_is_bound_to_job_and_instance(self):
        for where, expression in all_expressions(self.dashboard):
            with self.subTest(where):
                names = promql.series_names(expression)
                self.assertGreaterEqual(len(names), 1)
                bound = re.findall(rf"\b[a-z_]+\{{{re.escape(SELECTOR)}[,}}]", expression)
                self.assertEqual(len(bound), len(names), expression)

    def test_ids_are_unique(self):
        ids = [panel["id"] for panel in self.dashboard["panels"]] + [
            panel["id"] for row in self.dashboard["panels"] for panel in row.get("panels", [])]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in self.panels:
            references = [target["refId"] for target in panel["targets"]]
            self.assertEqual(len(references), len(set(references)), panel["title"])

    def test_titles_are_unique(self):
        titles = [panel["title"] for panel in self.panels]
        self.assertEqual(len(titles), len(set(titles)))

    def test_panels_do_not_overlap(self):
        taken = {}
        for panel in self.dashboard["panels"]:
            grid = panel["gridPos"]
            self.assertLessEqual(grid["x"] + grid["w"], GRID_COLUMNS, panel["title"])
            for x in range(grid["x"], grid["x"] + grid["w"]):
                for y in range(grid["y"], grid["y"] + grid["h"]):
                    other = taken.setdefault((x, y), panel["title"])
                    self.assertEqual(other, panel["title"])

    def test_every_line_of_the_grid_is_full(self):
        filled = {}
        for panel in self.dashboard["panels"]:
            grid = panel["gridPos"]
            for y in range(grid["y"], grid["y"] + grid["h"]):
                filled[y] = filled.get(y, 0) + grid["w"]
        self.assertEqual(sorted(filled), list(range(len(filled))))
        for y, columns in filled.items():
            self.assertEqual(columns, GRID_COLUMNS, f"grid line {y}")


def finite_values(series):
    """The numbers of one series of an instant or range query that are numbers."""
    samples = series.get("values") or [series["value"]]
    return [value for _, value in samples if math.isfinite(float(value))]


class DashboardUnderLoadTest(unittest.TestCase):
    """Sluice, two echo backends, one that refuses, clients of every kind, and Prometheus."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="sluice-monitoring-")
        cls.addClassCleanup(directory.cleanup)
        path = pathlib.Path(directory.name)
        backends = {"echo-1": websocket_traffic.EchoBackend(),
                    "echo-2": websocket_traffic.EchoBackend(),
                    "gone": websocket_traffic.RefusingBackend()}
        for backend in backends.values():
            cls.addClassCleanup(backend.close)
        cls.sluice = monitored_sluice.Sluice(
            path, {name: backend.address for name, backend in backends.items()})
        cls.addClassCleanup(cls.sluice.close)
        cls.prometheus = monitored_sluice.Prometheus(path, cls.sluice.admin)
        cls.addClassCleanup(cls.prometheus.close)
        cls.traffic = websocket_traffic.Traffic(
            cls.sluice.listeners["plain"], cls.sluice.listeners["secure"], cls.sluice.certificate)
        cls.traffic.start()
        cls.addClassCleanup(cls.traffic.stop)
        cls.dashboard = load_dashboard()
        cls.types = promql.family_types(cls.sluice.metrics())
        # A full rate interval has to lie behind before rates and increases mean anything.
        monitored_sluice.wait_for(
            "a dozen scrapes",
            lambda: any(int(s["value"][1]) >= 12
                        for s in cls.prometheus.query("count_over_time(up[5m])")),
            SECONDS_FOR_DATA)
        cls.variables = {name: cls._values_of(name) for name in ("job", "instance")}

    @classmethod
    def _values_of(cls, name):
        """What Grafana would find for a variable: label_values(selector, label)."""
        variables = {v["name"]: v for v in cls.dashboard["templating"]["list"]}
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)",
                                       variables[name]["definition"]).groups()
        return cls.prometheus.get(f"label/{label}/values",
                                  **{"match[]": selector.replace("$job", ".+")})

    def _resolved(self, expression):
        for name, values in self.variables.items():
            # As Grafana does: a regular expression inside a PromQL string, where \ is escaped too.
            pattern = "|".join(map(re.escape, values)).replace("\\", "\\\\")
            expression = expression.replace(f"${name}", pattern)
        return expression.replace("$__rate_interval", RATE_INTERVAL)

    def test_variables_have_values(self):
        self.assertEqual(self.variables["job"], ["sluice"])
        self.assertEqual(self.variables["instance"], [self.sluice.admin])

    def test_every_query_returns_data(self):
        for panel in all_panels(self.dashboard):
            for target in panel["targets"]:
                with self.subTest(panel=panel["title"], target=target["refId"]):
                    self._expect_data(self._resolved(target["expr"]), target["instant"])

    def _expect_data(self, expression, instant):
        def has_data():
            if instant:
                result = self.prometheus.query(expression)
            else:
                now = time.time()
                result = self.prometheus.get("query_range", query=expression, start=now - 5,
                                             end=now, step=1)["result"]
            return any(finite_values(series) for series in result)

        try:
            monitored_sluice.wait_for("data", has_data, 5)
        except TimeoutError:
            self.fail(f"no data, or not a number: {expression}")

    def test_every_metric_that_is_used_is_exported(self):
        used = list(all_expressions(self.dashboard))
        used += promql.rule_expressions(
            (monitored_sluice.PROMETHEUS_DIRECTORY / "rules.yml").read_text()).items()
        for where, expression in used:
            with self.subTest(where):
                for series in promql.series_names(expression):
                    if series != "up":  # made by Prometheus
                        self.assertIsNotNone(promql.family_of(series, self.types), series)

    def test_every_metric_that_is_exported_is_used(self):
        expressions = [expression for _, expression in all_expressions(self.dashboard)]
        expressions += promql.rule_expressions(
            (monitored_sluice.PROMETHEUS_DIRECTORY / "rules.yml").read_text()).values()
        shown = {promql.family_of(series, self.types)
                 for expression in expressions for series in promql.series_names(expression)}
        self.assertEqual(set(self.types) - shown, NOT_SHOWN)

    def test_every_rule_can_be_evaluated(self):
        def evaluated():
            groups = self.prometheus.get("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if all(rule["health"] != "unknown" for rule in rules) else None

        rules = monitored_sluice.wait_for("an evaluation of the rules", evaluated, 10)
        self.assertGreater(len(rules), 10)
        for rule in rules:
            self.assertEqual(rule["health"], "ok", rule)

    def test_load_went_through(self):
        try:
            monitored_sluice.wait_for("a round of every kind of client",
                                      lambda: all(self.traffic.rounds.values()), 10)
        except TimeoutError:
            self.fail(f"rounds: {self.traffic.rounds}, failures: {self.traffic.failures}")
        self.assertEqual(self.traffic.failures, {})


class DrainTest(unittest.TestCase):
    """What the Drain row shows while sessions are closed one after the other."""

    SESSIONS = 8

    def test_a_drain_can_be_watched(self):
        with tempfile.TemporaryDirectory(prefix="sluice-monitoring-") as directory:
            backend = websocket_traffic.EchoBackend()
            self.addCleanup(backend.close)
            sluice = monitored_sluice.Sluice(pathlib.Path(directory), {"echo-1": backend.address})
            self.addCleanup(sluice.close)
            clients = [websocket_traffic.WebSocketClient(sluice.listeners["plain"], i)
                       for i in range(self.SESSIONS)]
            readers = [threading.Thread(target=client.read_to_end) for client in clients]
            for reader in readers:
                reader.start()
            before = promql.samples(sluice.metrics())
            sluice.process.terminate()
            during = self._watch(sluice)
            for reader in readers:
                reader.join()
            self.assertEqual(sluice.process.wait(monitored_sluice.SECONDS_TO_END), 0)

        self.assertEqual(before["sluice_drain_sessions_remaining"], 0)
        self.assertTrue(all(scrape['sluice_drain_active{what="process"}'] == 1
                            for scrape in during))
        remaining = [scrape["sluice_drain_sessions_remaining"] for scrape in during]
        clean = [scrape['sluice_drain_closed_total{how="clean"}'] for scrape in during]
        seconds = [scrape["sluice_drain_seconds"] for scrape in during]
        self.assertGreater(max(remaining), min(remaining))
        self.assertLessEqual(max(remaining), self.SESSIONS)
        self.assertEqual(clean, sorted(clean))
        self.assertGreater(clean[-1], 0)
        self.assertGreater(seconds[-1], 0)
        self.assertEqual(during[-1]['sluice_drain_closed_total{how="forced"}'], 0)

    @staticmethod
    def _watch(sluice):
        """Every scrape that shows a drain, until the admin listener is gone."""
        scrapes = []

        def gone():
            try:
                scrape = promql.samples(sluice.metrics())
            except (OSError, http.client.HTTPException):
                return True
            if scrape['sluice_drain_active{what="process"}']:
                scrapes.append(scrape)
            return False

        monitored_sluice.wait_for("the end of the drain", gone, monitored_sluice.SECONDS_TO_END)
        return scrapes


if __name__ == "__main__":
    unittest.main()
