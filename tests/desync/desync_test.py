#!/usr/bin/python3
"""A client and a backend never disagree about where a request or an answer ends, whatever is sent.

desync_lab is both ends: its clients send pairs of requests, the first of each with an odd shape or
broken on purpose, the second a plain one that must get its own answer; its backend reads what
Sluice makes of them with llhttp, and answers in every framing there is, some of it wrong.

SLUICE_DESYNC_SEED repeats the pairs of a run that printed it; `desync_lab --only` shows one.
SLUICE_DEPLOY_LONG=1: a million pairs; SLUICE_DESYNC_PAIRS: so many.
"""

import json
import os
import random
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "deploy"))

from lab import ROOT, TOOLS, LabCase, Tool, configuration, sized  # noqa: E402

PAIRS = int(os.environ.get("SLUICE_DESYNC_PAIRS", sized(20_000, 1_000_000)))
SECONDS_TO_RUN = sized(150, 3000)
KINDS = 52  # of first requests: each mutation, and each shape that is right


class Lab:
    """desync_lab."""

    def __init__(self, folder, pairs, seed, *options):
        self.tool = Tool([TOOLS / "desync_lab", "--pairs", pairs, "--seed", seed, *options],
                         folder / "lab.log", takes_orders=True)
        self.port = int(self.tool.line(30))

    def report(self, proxy):
        """Of all its pairs through the proxy at that address."""
        self.tool.order(proxy)
        return json.loads(self.tool.line(SECONDS_TO_RUN))

    def close(self):
        self.tool.close()


def has_pool():
    """Whether connections to backends are kept."""
    schema = json.loads((ROOT / "config/sluice.schema.json").read_text())
    return "max_idle" in json.dumps(schema)


class DesyncTest(LabCase):
    def test_no_pair_is_seen_differently(self):
        seed = int(os.environ.get("SLUICE_DESYNC_SEED", random.randrange(1 << 32)))
        self.note(f"SLUICE_DESYNC_SEED={seed}")
        lab = self.start(Lab, PAIRS, seed)
        # With one worker and room for one, whoever comes next gets the connection that is left.
        pool = "keep_alive = { max_idle = 1 }\n" if has_pool() else ""
        self.start_sluice(configuration({"app": {"one": f"127.0.0.1:{lab.port}"}}, workers=1,
                                        pool_keys=pool + "outlier.failures = 0\n"))
        report = lab.report(self.sluice.listeners["plain"])
        counts = report["counts"]
        self.note(f"{counts}, {report['backend_connections']} connections to the backend, at most "
                  f"{report['most_requests_of_one']} requests on one, {report['seconds']:.1f} s")
        self.assertEqual(report["faults"], 0, "\n".join(report["told"]))
        self.assertEqual(counts["pairs"], PAIRS)
        # All of it was tried, and not only talked about.
        self.assertEqual(len(report["kinds"]), KINDS, report["kinds"])
        for what, least in (("answers_of_backend", 1.0), ("answers_of_sluice", 0.3),
                            ("begun_and_broken", 0.03), ("answers_cut", 0.005)):
            self.assertGreaterEqual(counts[what], PAIRS * least, what)
        self.assertGreaterEqual(self.sluice.metric("sluice_http_parse_errors_total"), PAIRS * 0.2)
        self.assertLess(counts.get("lost_with_their_connection", 0), PAIRS * 0.002 + 5)
        if has_pool():
            self.assertGreater(report["most_requests_of_one"], 1, "no connection was used again")

    def test_the_same_seed_gives_the_same_pairs(self):
        kinds = []
        for _ in range(2):
            lab = self.start(Lab, 200, 7, "--patience", 100)
            kinds.append(lab.report(f"127.0.0.1:{lab.port}")["kinds"])
        self.assertEqual(kinds[0], kinds[1])

    def test_a_proxy_that_does_nothing_is_found_out(self):
        """The lab's own backend in place of a proxy: all that is broken on purpose reaches it."""
        lab = self.start(Lab, 500, 3, "--patience", 100)
        report = lab.report(f"127.0.0.1:{lab.port}")
        self.assertGreater(report["faults"], 200)
        told = "\n".join(report["told"])
        self.assertRegex(told, "seed 3 pair [0-9]+: ")


if __name__ == "__main__":
    unittest.main()
