#!/usr/bin/python3
"""The runner of the benchmark, without running anything: turns, tables, ratios, chart, files."""

import argparse
import contextlib
import io
import json
import pathlib
import re
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import chart  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
from contenders import Contender, Failure  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

BY_NAME = {one.name: one for one in SCENARIOS}
ECHO = BY_NAME["echo64"]


def turns(*cpu, **more):
    return [{"cpu_us": value, "per_second": 1000.0, "p50_us": 10.0, "p99_us": 20.0,
             "p999_us": 30.0, "busy": 0.9, **more} for value in cpu]


RESULTS = {"sluice": turns(7.0, 8.0, 9.0), "haproxy": turns(12.0, 10.0, 11.0),
           "nginx": turns(10.0, 10.0, 30.0), "relay": turns(8.0, 8.0, 8.0),
           "direct": [{"per_second": 5000.0, "p50_us": 1.0, "p99_us": 2.0, "p999_us": 3.0}] * 3}
REPORT = {"date": "2030-01-02", "revision": "abc", "command": "./dev bench", "openssl": "OpenSSL 9",
          "machine": "a machine", "versions": {"sluice": "sluice 1", "nginx": "nginx/2"},
          "seconds": 3, "sessions": 4000, "load_average": [0.5, 1.5],
          "turns": {"echo64": RESULTS}}


class FiguresOfATurn(unittest.TestCase):
    def test_cpu_for_each_message(self):
        got = measure.figures_of({"messages": 1000, "seconds": 2.0, "cpu_seconds": 0.01,
                                  "p50_us": 1, "p99_us": 2, "p999_us": 3}, busy=True)
        self.assertAlmostEqual(got["cpu_us"], 10)
        self.assertAlmostEqual(got["per_second"], 500)
        self.assertAlmostEqual(got["busy"], 0.005)

    def test_cpu_for_each_million_bytes_and_throughput_in_mib(self):
        got = measure.figures_of({"messages": 2, "bytes": 2 * 1048576, "seconds": 1.0,
                                  "cpu_seconds": 0.002097152}, busy=True)
        self.assertAlmostEqual(got["cpu_us"], 1000)
        self.assertAlmostEqual(got["mib_per_second"], 2)

    def test_no_cpu_without_a_proxy(self):
        got = measure.figures_of({"connections": 10, "seconds": 1.0, "cpu_seconds": 0.0,
                                  "p50_us": 1, "p99_us": 2, "p999_us": 3}, busy=False)
        self.assertNotIn("cpu_us", got)
        self.assertEqual(got["per_second"], 10)

    def test_nothing_counted_is_a_failure(self):
        with self.assertRaises(Failure):
            measure.figures_of({"messages": 0, "seconds": 1.0, "cpu_seconds": 0.0, "p50_us": 0,
                                "p99_us": 0, "p999_us": 0}, busy=True)


class Tables(unittest.TestCase):
    def test_best_peer_is_the_least_median_of_the_peers_alone(self):
        self.assertEqual(report.best_peer(RESULTS, "cpu_us"), ("nginx", 10.0))
        self.assertEqual(report.best_peer({"sluice": turns(1.0), "relay": turns(1.0)}, "cpu_us"),
                         (None, None))

    def test_ratio_is_of_medians_and_its_range_of_rounds(self):
        self.assertEqual(report.ratio(RESULTS, "haproxy", "cpu_us"), "0.73 (0.58 to 0.82)")
        self.assertEqual(report.ratio(RESULTS, "sluice", "cpu_us"), "")
        self.assertEqual(report.ratio(RESULTS, "direct", "cpu_us"), "")

    def test_table(self):
        lines = report.table(ECHO, RESULTS).splitlines()
        self.assertEqual(lines[0].count("|"), lines[1].count("|"))
        self.assertEqual(lines[2], "| sluice | 8.00 | 7.00 to 9.00 |  | 1,000 | 10 | 20 | 30 | 0.90 |")
        self.assertEqual(lines[3], "| haproxy | 11.00 | 10.00 to 12.00 | 0.73 (0.58 to 0.82) "
                                   "| 1,000 | 10 | 20 | 30 | 0.90 |")
        self.assertEqual(lines[6], "| direct |  |  |  | 5,000 | 1 | 2 | 3 |  |")

    def test_summary(self):
        self.assertEqual(report.summary([(ECHO, RESULTS)]).splitlines()[2:], [
            "| `echo64` | CPU us/round trip | 8.00 | 10.00 (nginx) | 0.80 | 8.00 | 1.00 |"])

    def test_summary_without_sluice_or_without_peers_has_no_row(self):
        for name in ("sluice", "nginx"):
            results = {name: RESULTS[name]}
            self.assertEqual(report.summary_rows([(ECHO, results)]), [])

    def test_summary_has_a_row_for_each_headline(self):
        idle = {name: [{"session_bytes": 1000.0 * factor, "burst_bytes": 1100.0 * factor,
                        "rss_kib": 9000, "empty_kib": 500.0}]
                for name, factor in (("sluice", 1), ("haproxy", 4), ("nginx", 20))}
        rows = report.summary_rows([(BY_NAME["idle"], idle)])
        self.assertEqual([row[1].key for row in rows], ["session_bytes", "burst_bytes", "rss_kib"])
        self.assertEqual([row[5] for row in rows], [0.25, 0.25, 1.0])

    def test_two_workers_are_compared_with_one(self):
        results = {"1 worker": turns(10.0), "2 workers": turns(10.5, per_second=1900.0)}
        text = report.summary([(BY_NAME["workers2"], results)])
        self.assertIn("| 10.50 | 10.00 (1 worker) | 1.05 |", text)
        self.assertIn("| 1,900 | 1,000 (1 worker) | 1.90 |", text)
        self.assertIn("1.05 (1.05 to 1.05)",
                      report.table(BY_NAME["workers2"], results).splitlines()[2])

    def test_how_sessions_ended(self):
        drained = [{"sessions": 100, "open": 10, "codes": {"1012": 60, "end of stream": 30}}] * 2
        self.assertEqual(report.endings(drained),
                         "CLOSE 1012: 60 %, end of stream: 30 %, still open: 10 %")


class Chart(unittest.TestCase):
    SPACE = "{http://www.w3.org/2000/svg}"

    def setUp(self):
        self.root = ElementTree.fromstring(chart.chart([(ECHO, RESULTS)]))

    def bars(self, name):
        return [one for one in self.root.iter(self.SPACE + "rect")
                if one.get("class") == name and one.get("width") != "12"]

    def test_bars_are_as_long_as_the_multiple_of_the_best_peer(self):
        self.assertAlmostEqual(float(self.bars("nginx")[0].get("width")), chart.SCALE)
        self.assertAlmostEqual(float(self.bars("sluice")[0].get("width")), 0.8 * chart.SCALE)
        self.assertEqual(self.bars("haproxy-splice"), [])

    def test_nothing_leaves_the_picture_or_meets_another_text(self):
        lines = {}
        height = float(self.root.get("height"))
        for one in self.root.iter(self.SPACE + "text"):
            x, y, width = float(one.get("x")), float(one.get("y")), 8 * len(one.text)
            left = x - width if one.get("text-anchor") == "end" else x
            self.assertGreaterEqual(left, 0, one.text)
            self.assertLessEqual(left + width, chart.WIDTH, one.text)
            self.assertLess(y, height)
            for other_left, other_right in lines.setdefault(y, []):
                self.assertTrue(left + width <= other_left or left >= other_right, one.text)
            lines[y].append((left, left + width))

    def test_a_long_bar_is_cut(self):
        results = {**RESULTS, "haproxy": turns(1000.0)}
        root = ElementTree.fromstring(chart.chart([(ECHO, results)]))
        widths = [float(one.get("width")) for one in root.iter(self.SPACE + "rect")
                  if one.get("class") == "haproxy"]
        self.assertEqual(max(widths), chart.SCALE * chart.LONGEST)

    def test_it_has_colours_for_dark_ground(self):
        self.assertIn("prefers-color-scheme: dark", chart.chart([(ECHO, RESULTS)]))


class FakeBench:
    def __init__(self, fails=None):
        self.order, self.fails = [], fails

    def turn(self, _, contender):
        name = contender.name if contender else "direct"
        self.order.append(name)
        if name == self.fails:
            raise Failure("it broke")
        return {"cpu_us": 1.0}


class Turns(unittest.TestCase):
    CONTENDERS = {name: Contender(name, name, pathlib.Path("/x"), "1")
                  for name in ("sluice", "haproxy", "nginx")}

    def run_turns(self, bench, only=None):
        arguments = argparse.Namespace(repeats=3, only=only)
        with contextlib.redirect_stderr(io.StringIO()):
            return run.run_scenario(bench, BY_NAME["echo64-tls"], self.CONTENDERS, arguments)

    def test_contenders_take_turns_and_each_begins_once(self):
        bench = FakeBench()
        results = self.run_turns(bench)
        self.assertEqual(bench.order, ["sluice", "haproxy", "nginx", "haproxy", "nginx", "sluice",
                                       "nginx", "sluice", "haproxy"])
        self.assertEqual({name: len(got) for name, got in results.items()},
                         {"sluice": 3, "haproxy": 3, "nginx": 3})

    def test_only_some(self):
        bench = FakeBench()
        self.run_turns(bench, only=["nginx"])
        self.assertEqual(bench.order, ["nginx"] * 3)

    def test_what_is_wrong_says_where(self):
        with self.assertRaisesRegex(Failure, "^echo64-tls, haproxy: it broke$"):
            self.run_turns(FakeBench(fails="haproxy"))


class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-bench-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def test_results_replace_those_between_the_marks_alone(self):
        path = self.folder / "page.md"
        path.write_text(f"before\n{run.BEGIN}old\n{run.END}after\n")
        for text in ("new\n", "newer\n"):
            run.write_markdown(path, text)
            self.assertEqual(path.read_text(), f"before\n{run.BEGIN}\n{text}\n{run.END}after\n")

    def test_the_page_has_the_marks(self):
        page = (run.ROOT / "docs" / "BENCHMARKS.md").read_text()
        self.assertEqual(page.count(run.BEGIN), 1)
        self.assertEqual(page.count(run.END), 1)
        self.assertLess(page.index(run.BEGIN), page.index(run.END))

    def test_every_scenario_is_on_the_page(self):
        page = (run.ROOT / "docs" / "BENCHMARKS.md").read_text()
        for scenario in SCENARIOS:
            self.assertIn(f"`{scenario.name}`", page[:page.index(run.BEGIN)])

    def test_kept_turns_are_reported_again(self):
        kept, page, picture = (self.folder / name for name in ("a.json", "a.md", "a.svg"))
        kept.write_text(json.dumps(REPORT))
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            run.main(["--from", str(kept), "--markdown", str(page), "--svg", str(picture)])
        self.assertIn("| `echo64` | CPU us/round trip | 8.00 | 10.00 (nginx) | 0.80 |",
                      output.getvalue())
        text = page.read_text()
        self.assertIn("](a.svg)", text)
        self.assertIn("2030-01-02, revision abc", text)
        self.assertIn("| haproxy | 11.00 |", text)
        ElementTree.fromstring(picture.read_text())

    def test_configurations_have_no_blank_left(self):
        known = {"PORT", "ADMIN", "BACKEND", "DIR", "TLS", "WINDOW", "WORKERS", "SPLICE"}
        files = sorted((run.HERE / "conf").iterdir())
        self.assertEqual([one.name for one in files],
                         ["haproxy.cfg.in", "nginx.conf.in", "sluice.toml.in"])
        for one in files:
            self.assertLessEqual(set(re.findall("@([A-Z]+)@", one.read_text())), known)


if __name__ == "__main__":
    unittest.main()
