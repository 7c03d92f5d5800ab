#!/usr/bin/python3
"""Closes at random bytes, by the thousand: whatever makes Sluice close a session, its CLOSE stands
between two frames, says why, and nothing follows it; what the backend said before its own CLOSE has
arrived. close_storm is both ends of every session and knows each byte before it comes.

SLUICE_STORM_SEED repeats the plans of a run that printed it; with SLUICE_STORM_SESSION every session
has the plan of that one. SLUICE_DEPLOY_LONG=1: 100,000 closes; SLUICE_STORM_CLOSES: so many, by
SLUICE_STORM_AT_ONCE sessions at a time.
"""

import collections
import json
import os
import random
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lab import LONG, TOOLS, LabCase, Sluice, Tool, make_certificate, sized  # noqa: E402

CLOSES = int(os.environ.get("SLUICE_STORM_CLOSES", sized(5000, 100_000)))
ROUNDS = sized(2, 16)  # processes of Sluice, one after the other, each with another configuration
AT_ONCE = int(os.environ.get("SLUICE_STORM_AT_ONCE", 300))
SECONDS_OF_A_ROUND = sized(120, 900)
CAUSES = ["kick", "backend_drain", "process_drain", "max_age", "lost", "heartbeat",
          "client_violation", "backend_violation"]
MESSAGE_GRACE_MS, CLOSE_TIMEOUT_MS = 500, 3000


def storm_configuration(ports, certificate, refragment, out_buffer):
    chain, key = certificate
    text = f"""
[server]
workers = 2
close_timeout = "{CLOSE_TIMEOUT_MS}ms"
[limits]
out_buffer = "{out_buffer}"
[[listener]]
name = "plain"
address = "127.0.0.1:0"
[[listener]]
name = "secure"
address = "127.0.0.1:0"
tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]
[drain]
window = "0s"
grace = "60s"
message_grace = "{MESSAGE_GRACE_MS}ms"
reason = "storm drain"
[admin]
address = "127.0.0.1:0"
[log]
access = "off"
[pool.app]
slow_start = "0s"
backends = [
"""
    for i, port in enumerate(ports):
        text += f'  {{ name = "b{i}", address = "127.0.0.1:{port}" }},\n'
    text += "]\n"
    kinds = {"std": 'heartbeat.interval = "0s"',
             "age": 'heartbeat.interval = "0s"\nlimits.max_connection_age = "1s"',
             "beat": 'heartbeat.client.interval = "0s"\nheartbeat.interval = "200ms"\nheartbeat.timeout = "300ms"'}
    for kind, lines in kinds.items():
        for suffix, more in (("", ""), ("-cut", f'refragment = "{refragment}B"')):
            text += (f'[[route]]\npath = "/{kind}{suffix}"\npool = "app"\n'
                     'affinity = ["query:uid"]\nlimits.max_message_bytes = "1MiB"\n'
                     f"limits.max_frames_per_message = 8\n{lines}\n{more}\n")
    return text


class StormCase(LabCase):
    def start_storm(self, seed, *options):
        storm = Tool([TOOLS / "close_storm", "--seed", seed, "--message-grace", MESSAGE_GRACE_MS,
                      "--close-timeout", CLOSE_TIMEOUT_MS, *options], self.folder / "storm.log",
                     takes_orders=True)
        self.addCleanup(storm.close)
        self.ports = [int(port) for port in storm.line(10).split()]
        return storm


class CloseStormTest(StormCase):
    def test_every_close_stands_between_two_frames(self):
        seed = int(os.environ.get("SLUICE_STORM_SEED", random.randrange(1 << 32)))
        self.note(f"SLUICE_STORM_SEED={seed}")
        only = os.environ.get("SLUICE_STORM_SESSION")
        choose = random.Random(seed)
        storm = self.start_storm(seed, "--at-once", AT_ONCE, *(["--only", only] if only else []))
        certificate = make_certificate(self.folder, "storm")
        sums, found = collections.Counter(), []
        began = time.monotonic()
        for number in range(ROUNDS):
            refragment = choose.choice([1024, 4096, 20_000])
            out_buffer = choose.choice(["4KiB", "16KiB", "64KiB", "256KiB"])
            sluice = Sluice(self.folder, storm_configuration(self.ports, certificate, refragment,
                                                             out_buffer), f"sluice-{number}")
            self.addCleanup(sluice.close)
            storm.order(f"{sluice.listeners['plain']} {sluice.listeners['secure']} {sluice.admin} "
                        f"{CLOSES // ROUNDS} {refragment}")
            self.assertIn("full", json.loads(storm.line(SECONDS_OF_A_ROUND)))
            sluice.terminate()
            figures = json.loads(storm.line(SECONDS_OF_A_ROUND))
            sluice.wait_until_gone(sluice.pid)
            where = f"seed {seed}, round {number}: refragment {refragment}, {out_buffer}"
            self.assertEqual(sluice.status_of(sluice.pid), 0, where + "\n" + sluice.tail())
            found += [f"{where}: {one}" for one in figures["told"]]
            self.assertEqual(figures["failures"], {}, where)
            torn = figures["torn_client"] + figures["torn_backend"]
            self.assertGreaterEqual(figures["counted_torn"], torn, f"{where}: {figures}")
            self.assertLessEqual(figures["counted_torn"], torn + figures["maybe_torn"],
                                 f"{where}: {figures}")
            for name, value in figures.items():
                if isinstance(value, int):
                    sums[name] += value
                elif isinstance(value, dict):
                    sums.update({f"{name} {key}": count for key, count in value.items()})
        seconds = time.monotonic() - began
        self.note(f"{sums['closes']} closes in {seconds:.0f} s, {sums['violations']} violations")
        self.note(json.dumps(dict(sorted(sums.items()))))
        self.assertEqual(found, [], f"seed {seed}")
        self.assertEqual(sums["violations"], 0)
        self.assertGreaterEqual(sums["closes"], CLOSES // ROUNDS * ROUNDS)
        if only:
            return
        # A storm in which something never happens proves nothing of it.
        for cause in CAUSES:
            self.assertGreater(sums[f"labels {cause}"], CLOSES / 1000, cause)
        for place in ("in_header", "in_payload", "in_message", "between"):
            self.assertGreater(sums[f"at_close {place}"], CLOSES / 100, place)
        for kind in ("tls", "deflate", "refragment"):
            self.assertGreater(sums[kind], CLOSES / 20, kind)
        self.assertGreater(sums["complete"], CLOSES / 2)
        self.assertGreater(sums["full"], CLOSES / 500)
        self.assertGreater(sums["torn_client"] + sums["torn_backend"], 0)
        self.assertGreater(sums["backend_closes"], CLOSES / 2)


if __name__ == "__main__":
    unittest.main()
