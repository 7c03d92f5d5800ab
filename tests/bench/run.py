#!/usr/bin/python3
"""Measures Sluice beside other proxies and prints a table for each scenario.

    tests/bench/run.py [--scenario NAME]... [--repeats N] [--seconds S] [--quick]
                       [--markdown FILE] [--svg FILE] [--json FILE]

Each proxy runs alone on one core, with one worker; the load and the backend share another. The
contenders take turns (A B C, B C A, ...), each turn with a process started for it, so that what
else the machine does falls on all of them alike. What is compared is the CPU time of the proxy's
processes for each message, MB or connection, or the memory for each session; docs/BENCHMARKS.md
says more.

Installs nothing: `./dev bench` does. A contender whose program is missing is left out, aloud.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import ssl
import subprocess
import sys
import tempfile

import chart
import report as reporting
from contenders import Failure, find_contenders, make_certificate, tool_with_port
from measure import Bench
from scenarios import SCENARIOS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "tests" / "bench"
TOOLS = ROOT / "build" / "bench"
# Between these lines --markdown replaces what a file has; a file without them is written anew.
BEGIN, END = "<!-- results of ./dev bench -->\n", "<!-- end of results -->\n"


def machine():
    model = "unknown processor"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}"


def revision():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def build_tools():
    options = {"check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "-S", HERE, "-B", TOOLS, "-G", "Ninja", "--log-level=WARNING"],
                   **options)
    subprocess.run(["cmake", "--build", TOOLS], **options)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", action="append", choices=[one.name for one in SCENARIOS],
                        metavar="NAME", help="one of several: "
                        + ", ".join(one.name for one in SCENARIOS) + "; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="counted, of each turn")
    parser.add_argument("--warmup", type=float, default=1, help="seconds before")
    parser.add_argument("--sessions", type=int, default=4000, help="of the idle scenarios, and streams")
    parser.add_argument("--quick", action="store_true",
                        help="2 repeats of short turns: rough figures in a few minutes")
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="of sluice, haproxy, haproxy-splice, nginx, relay, direct; default: "
                             "all")
    parser.add_argument("--sluice", type=pathlib.Path, default=ROOT / "build/release/bin/sluice")
    parser.add_argument("--haproxy", default="haproxy", help="program to measure")
    parser.add_argument("--nginx", default="nginx", help="program to measure")
    cores = sorted(os.sched_getaffinity(0))
    parser.add_argument("--load-core", type=int, default=cores[0])
    parser.add_argument("--proxy-core", type=int, default=cores[-1])
    parser.add_argument("--json", type=pathlib.Path, help="writes every turn there")
    parser.add_argument("--from", type=pathlib.Path, metavar="JSON", dest="kept",
                        help="measures nothing: reports what --json has written")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE",
                        help="writes the results there, between the marks if it has them")
    parser.add_argument("--svg", type=pathlib.Path, metavar="FILE", help="writes a chart there")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.repeats, arguments.seconds, arguments.warmup = 2, 0.7, 0.3
        arguments.sessions = 1000
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    return arguments


def run_scenario(bench, scenario, contenders, arguments):
    """The turns of each contender, interleaved."""
    names = [name for name in scenario.contenders
             if (name in contenders or name == "direct")
             and (not arguments.only or name in arguments.only or name.endswith(("worker",
                                                                                  "workers")))]
    results = {name: [] for name in names}
    for repeat in range(arguments.repeats):
        shift = repeat % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            try:
                turn = bench.turn(scenario, contenders.get(name))
            except Failure as failure:
                raise Failure(f"{scenario.name}, {name}: {failure}") from failure
            results[name].append(turn)
            shown = {key: round(value, 3) if isinstance(value, float) else value
                     for key, value in turn.items()}
            print(f"  {scenario.name} {repeat + 1}/{arguments.repeats} {name} "
                  f"load {os.getloadavg()[0]:.1f} {json.dumps(shown)}", file=sys.stderr)
            if turn.get("tickets_reused"):
                print(f"note: {name} gives no ticket to those who resume; old ones were used "
                      f"{turn['tickets_reused']} times", file=sys.stderr)
    return results


def measured_in(report):
    """Pairs of a scenario and its results, in the order of SCENARIOS."""
    return [(scenario, report["turns"][scenario.name]) for scenario in SCENARIOS
            if any(report["turns"].get(scenario.name, {}).values())]


def measure_all(arguments, argv, on_progress):
    """Runs what was chosen; returns the report and the sentences of what failed."""
    chosen = [one for one in SCENARIOS
              if not arguments.scenario or one.name in arguments.scenario]
    build_tools()
    contenders = find_contenders(arguments.sluice, arguments.haproxy, arguments.nginx, TOOLS)
    report = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "revision": revision(),
        "command": " ".join(["./dev bench", *argv]), "openssl": ssl.OPENSSL_VERSION,
        "versions": {one.name: one.version for one in contenders.values()
                     if one.kind != "relay"},
        "seconds": arguments.seconds, "sessions": arguments.sessions,
        "load_average": [os.getloadavg()[0]], "turns": {},
    }
    print(f"{report['date']}, {report['machine']}, revision {report['revision']}")
    for version in dict.fromkeys(report["versions"].values()):
        print(version)
    if arguments.load_core == arguments.proxy_core:
        print("note: load and proxy share the only core; the figures are rough", file=sys.stderr)
    failures = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = make_certificate(folder, "bench")
        for scenario in chosen:
            cores = (f"{arguments.load_core},{arguments.proxy_core}"
                     if scenario.name == "workers2" else arguments.load_core)
            try:
                with tool_with_port(cores, [TOOLS / "bench_echo_backend"]) as (_, backend):
                    bench = Bench(arguments, TOOLS, backend, certificate)
                    results = run_scenario(bench, scenario, contenders, arguments)
            except Failure as failure:
                # A scenario with anything wrong in it has no figures; the others have theirs.
                failures.append(str(failure))
                print(f"failed: {failure}", file=sys.stderr)
                continue
            report["turns"][scenario.name] = results
            report["load_average"].append(os.getloadavg()[0])
            print(f"\n{reporting.scenario_heading(scenario, report)}\n\n"
                  f"{reporting.table(scenario, results)}", flush=True)
            on_progress(report)
    return report, failures


def write_markdown(path, text):
    old = path.read_text() if path.exists() else ""
    if BEGIN in old and END in old:
        text = (old[:old.index(BEGIN) + len(BEGIN)] + "\n" + text + "\n"
                + old[old.index(END):])
    path.write_text(text)


def main(argv):
    arguments = parse(argv)

    def keep(report):
        if arguments.json:
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")

    if arguments.kept:
        report, failures = json.loads(arguments.kept.read_text()), []
    else:
        report, failures = measure_all(arguments, argv, keep)
    measured = measured_in(report)
    print(f"\n{reporting.summary(measured)}")
    loads = report["load_average"]
    print(f"\nLoad average of the machine meanwhile: {min(loads):.1f} to {max(loads):.1f}")
    picture = ""
    if arguments.svg:
        arguments.svg.write_text(chart.chart(measured))
        folder = arguments.markdown.parent if arguments.markdown else arguments.svg.parent
        picture = os.path.relpath(arguments.svg, folder)
    if arguments.markdown:
        write_markdown(arguments.markdown, reporting.markdown(report, measured, picture))
    if failures:
        raise Failure("; ".join(failures))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failure as failure:
        sys.exit(f"run.py: {failure}")
