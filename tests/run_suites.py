#!/usr/bin/python3
"""Runs every test suite of the project and adds up what they report.

Each suite is one process that leaves a JUnit report. A suite that reports no test, leaves no
readable report, runs out of time or exits with an error counts as at least one failure: silence
is never success. The last line is always `N passed, N failed`.

    tests/run_suites.py [--long] [--only PATTERN]... [--list]

Reports and logs are left in build/test-results/. Needs the builds that `./dev test` makes.
"""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
import unittest
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "test-results"
PYTHON = "/usr/bin/python3"
# From npm, since Debian's Node is too old for playwright-core. By its full path: the npm of Debian 12
# makes no link in .bin for an optional package.
NODE_ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "unknown")
NODE = ROOT / f"tests/e2e/node_modules/node-linux-{NODE_ARCHITECTURE}/bin/node"

# Each of these has to exist: a folder whose tests are no longer built is a failure, not a gap.
# Others that the build makes are run as well.
UNIT_FOLDERS = ["base", "net", "proxy_protocol", "http", "ws", "balance", "health", "drain", "log",
                "metrics", "config", "routing", "discovery", "tls", "session", "admin", "takeover", "systemd", "server",
                "demo", "cli", "bench"]
INTEGRATION_PRESETS = ["release", "asan", "tsan"]
# The tests of tests/deploy whose size depends on SLUICE_DEPLOY_LONG.
LONG_DEPLOYS = ["backend_kill", "close_storm", "reconnect_peak", "reload", "rolling_restart",
                "takeover"]
# The tests of tests/e2e whose size depends on SLUICE_E2E_LONG.
LONG_E2E = ["graphql", "http_tools", "learned", "mqtt", "signalr", "sockjs", "socketio", "sse"]
ONLY_LONG_E2E = ["tomcat"]  # what it needs is large, and slow to start
TAIL_LINES = 40
SECONDS_TO_END = 5  # between SIGTERM and SIGKILL for a suite that ran out of time


@dataclasses.dataclass
class Suite:
    name: str
    command: list  # of str; {report} stands for the path of the report to write
    timeout: float  # seconds
    environment: dict = dataclasses.field(default_factory=dict)
    long: bool = False  # runs only with --long
    # False: the command leaves no report; its exit status is the one test of the suite.
    reports: bool = True
    needs: list = dataclasses.field(default_factory=list)  # files without which it cannot run
    beside: int = 1  # so many of its kind may run at a time


@dataclasses.dataclass
class Outcome:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    complaints: list = dataclasses.field(default_factory=list)  # one sentence each
    seconds: float = 0.0


def test_preset_environment(preset):
    """The sanitizer options that CMakePresets.json keeps for `preset`."""
    presets = json.loads((ROOT / "CMakePresets.json").read_text())["testPresets"]
    for entry in presets:
        if entry["name"] == preset:
            return entry.get("environment", {})
    return {}


def without_address_randomisation():
    """The command prefix under which GCC's ThreadSanitizer starts on every kernel.

    Kernels with vm.mmap_rnd_bits above 28 place mappings where the runtime of g++ 12 gives up.
    Some containers forbid the call; then the kernel's setting has to do.
    """
    prefix = ["setarch", "-R"]
    try:
        subprocess.run(prefix + ["true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return prefix


def gtest_suite(name, binary, timeout, environment=None, prefix=()):
    return Suite(
        name=name,
        command=[*prefix, str(binary), "--gtest_output=xml:{report}", "--gtest_brief=1"],
        timeout=timeout,
        environment=environment or {},
        needs=[binary],
    )


def unit_suites():
    directory = ROOT / "build" / "asan" / "bin"
    names = {f"unit_{folder}" for folder in UNIT_FOLDERS}
    names |= {path.name for path in directory.glob("unit_*")}
    environment = test_preset_environment("asan")
    suites = [gtest_suite(name, directory / name, 120, environment) for name in sorted(names)]
    for suite in suites:
        suite.beside = 2  # as there are cores at least
    return suites


def soak_suite(churn):
    """The churn test for ten times as many rounds: what leaks a little shows."""
    return dataclasses.replace(churn, name="soak_churn", timeout=1800, long=True,
                               environment={**churn.environment, "SLUICE_CHURN_ROUNDS": "200"})


def fuzz_targets():
    """Named by their sources: a target that is no longer built is a failure."""
    return sorted(path.stem for path in (ROOT / "tests" / "fuzz").glob("*_fuzz.cc"))


def replay_suites():
    """The fuzz targets fed with their kept inputs, under the sanitizers."""
    suites = []
    for name in fuzz_targets():
        binary = ROOT / "build" / "asan" / "bin" / f"replay_{name}"
        inputs = ROOT / "tests" / "fuzz" / "corpus" / name
        suites.append(Suite(
            name=f"replay_{name.removesuffix('_fuzz')}",
            command=[str(binary), str(inputs)],
            timeout=120,
            environment=test_preset_environment("asan"),
            reports=False,
            needs=[binary, inputs],
        ))
    return suites


def integration_suites():
    """The same tests against each build of the binary; the tests themselves are built once."""
    suites = []
    tests = ROOT / "build" / "release" / "bin" / "integration"
    for preset in INTEGRATION_PRESETS:
        binary = ROOT / "build" / preset / "bin" / "sluice"
        environment = dict(test_preset_environment(preset))
        environment["SLUICE_BIN"] = str(binary)
        if preset == "tsan":
            environment["SLUICE_TEST_WORKERS"] = "2"
        prefix = without_address_randomisation() if preset == "tsan" else []
        suite = gtest_suite(f"integration_{preset}", tests, 600, environment, prefix)
        suite.needs.append(binary)
        suite.beside = len(INTEGRATION_PRESETS)  # they wait more than they compute
        suites.append(suite)
    return suites


def cost_suite():
    """What a message costs in calls. Only the shipped build can be counted."""
    binary = ROOT / "build" / "release" / "bin"
    suite = gtest_suite("message_cost", binary / "message_cost", 120)
    suite.needs.append(binary / "sluice")
    return suite


def release_binary():
    return ROOT / "build" / "release" / "bin" / "sluice"


def test_files(folder, pattern):
    """The test files of tests/<folder>; when there are none, one that cannot be found."""
    directory = ROOT / "tests" / folder
    return sorted(directory.glob(pattern)) or [directory / pattern.replace("*", "(any)")]


def python_suites(prefix, folder, timeout):
    return [
        Suite(
            name=f"{prefix}_{path.stem.removesuffix('_test')}",
            command=[PYTHON, str(pathlib.Path(__file__)), "--unittest", str(path), "--report",
                     "{report}"],
            timeout=timeout,
            environment={"SLUICE_BIN": str(release_binary())},
            needs=[release_binary(), path],
        )
        for path in test_files(folder, "*_test.py")
    ]


def bench_suites():
    """The benchmark's load and runner, for a moment each; what it measures is not compared."""
    suites = python_suites("bench", "bench", 180)
    for suite in suites:
        suite.needs += [release_binary().with_name(name)
                        for name in ("bench_load", "bench_echo_backend")]
    return suites


def deploy_suites():
    """Deploys under sessions that talk, in a size for every day; with --long, as large as meant."""
    suites = python_suites("deploy", "deploy", 180)
    for suite in suites:
        suite.needs += [release_binary().with_name(name)
                        for name in ("deploy_client", "deploy_backend", "close_storm")]
    return suites + [
        # With SLUICE_DEPLOY_HOUR=1 one of them takes an hour.
        full_size(suite, "deploy", 4500)
        for suite in suites if suite.name.removeprefix("deploy_") in LONG_DEPLOYS]


def full_size(suite, prefix, timeout, variable="SLUICE_DEPLOY_LONG"):
    """The same tests, as large as they are meant to be."""
    return dataclasses.replace(suite, name=suite.name.replace(f"{prefix}_", f"{prefix}_long_"),
                               long=True, timeout=timeout,
                               environment={**suite.environment, variable: "1"})


def pressure_suites():
    """Too many, too slow, too much, and nonsense; with --long, at the figures that are promised."""
    suites = python_suites("pressure", "pressure", 120)
    for suite in suites:
        suite.needs += [release_binary().with_name(name)
                        for name in ("deploy_client", "deploy_backend", "pressure_crowd",
                                     "pressure_flood", "pressure_probe")]
    return suites + [full_size(suite, "pressure", 600)
                     for suite in suites if suite.name != "pressure_tools"]


def e2e_suites():
    """Other people's clients and servers on both sides; with --long, as many as are promised."""
    suites = python_suites("e2e", "e2e", 180) + node_suites()
    for suite in suites:
        suite.long = suite.name.removeprefix("e2e_") in ONLY_LONG_E2E
    return suites + [full_size(suite, "e2e", 600, "SLUICE_E2E_LONG")
                     for suite in suites if suite.name.removeprefix("e2e_") in LONG_E2E]


def desync_suites():
    """Where requests and answers end, to two readers that must not differ; with --long, a million
    pairs."""
    suites = python_suites("desync", "desync", 180)
    for suite in suites:
        suite.needs.append(release_binary().with_name("desync_lab"))
    return suites + [full_size(suite, "desync", 3600) for suite in suites]


def node_suites():
    return [
        Suite(
            name=f"e2e_{path.name.removesuffix('.test.mjs')}",
            command=[str(NODE), "--test", "--test-reporter=junit",
                     "--test-reporter-destination={report}", "--test-reporter=spec",
                     "--test-reporter-destination=stdout", str(path)],
            timeout=180,
            environment={"SLUICE_BIN": str(release_binary()), "NODE_NO_WARNINGS": "1"},
            needs=[release_binary(), NODE, path],
        )
        for path in test_files("e2e", "*.test.mjs")
    ]


def fuzz_suites():
    """A minute of libFuzzer for each target; the kept inputs are where it starts."""
    suites = []
    for name in fuzz_targets():
        binary = ROOT / "build" / "fuzz" / "bin" / name
        inputs = ROOT / "tests" / "fuzz" / "corpus" / name
        suites.append(Suite(
            name=f"fuzz_{name.removesuffix('_fuzz')}",
            command=["sh", "-c",
                     'mkdir -p "$1" && exec "$2" -max_total_time=60 -timeout=10'
                     ' -artifact_prefix="$1/" "$1" "$3"',
                     "sh", str(RESULTS / "fuzz" / name), str(binary), str(inputs)],
            timeout=180,
            reports=False,
            long=True,
            needs=[binary, inputs],
        ))
    return suites


def all_suites():
    suites = unit_suites()
    suites += replay_suites()
    suites += integration_suites()
    suites.append(cost_suite())
    suites += bench_suites()
    suites += python_suites("docker", "docker", 60)
    suites += python_suites("monitoring", "monitoring", 180)
    suites += e2e_suites()
    suites += deploy_suites()
    suites += pressure_suites()
    suites += desync_suites()
    suites += fuzz_suites()
    suites += [soak_suite(suite) for suite in suites if suite.name == "e2e_churn"]
    image = ROOT / "tests" / "docker" / "build_image.sh"
    suites.append(Suite(name="image_build", command=[str(image)], timeout=1800, reports=False,
                        long=True, needs=[image]))
    return suites


def read_report(path, outcome):
    """Adds what a JUnit report says. Test cases count, whatever the totals in its head claim."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.get("status") == "notrun":  # GoogleTest: disabled, or filtered out
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
            group = case.get("classname", "")
            name = case.get("name", "?")
            title = f"{group}.{name}" if group not in ("", "test") else name
            outcome.complaints.append(f"failed: {title}")
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1


def end_group(group, sig):
    """Signals a suite's process group. False when nothing of it is left."""
    try:
        os.killpg(group, sig)
    except ProcessLookupError:
        return False
    return True


def run(suite):
    """Runs one suite to its end. Everything it starts is in one process group, ended with it."""
    outcome = Outcome()
    report = RESULTS / f"{suite.name}.xml"
    log_path = RESULTS / f"{suite.name}.log"
    report.unlink(missing_ok=True)
    log_path.write_text("")
    started = time.monotonic()

    missing = [path for path in suite.needs if not pathlib.Path(path).exists()]
    if missing:
        outcome.failed = 1
        for path in missing:
            outcome.complaints.append(f"missing: {pathlib.Path(path).relative_to(ROOT)}")
        return outcome

    command = [part.replace("{report}", str(report)) for part in suite.command]
    status = None
    with log_path.open("wb") as log:
        try:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True,
                                       env={**os.environ, **suite.environment})
        except OSError as error:
            outcome.failed = 1
            outcome.complaints.append(f"does not start: {error}")
            return outcome
        try:
            status = process.wait(timeout=suite.timeout)
        except subprocess.TimeoutExpired:
            end_group(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                pass
        finally:
            end_group(process.pid, signal.SIGKILL)
            process.wait()
    outcome.seconds = time.monotonic() - started

    if suite.reports:
        try:
            read_report(report, outcome)
        except (OSError, ElementTree.ParseError) as error:
            outcome.failed += 1
            outcome.complaints.append(f"no readable report: {error}")
    elif status == 0:
        outcome.passed += 1

    if status is None:
        outcome.failed += 1
        outcome.complaints.append(f"not done after {suite.timeout:.0f} s")
    elif status != 0 and outcome.failed == 0:
        outcome.failed += 1
        outcome.complaints.append(f"exit status {status}")
    if outcome.passed + outcome.failed == 0:
        outcome.failed += 1
        outcome.complaints.append("ran no test")
    return outcome


def tail(suite):
    lines = (RESULTS / f"{suite.name}.log").read_text(errors="replace").splitlines()
    return lines[-TAIL_LINES:]


def run_unittest(path, report):
    """Runs the unittest file `path` and writes a JUnit report: one case per test method."""
    sys.path.insert(0, str(pathlib.Path(path).parent))

    class Recorder(unittest.TextTestResult):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.root = ElementTree.Element("testsuites")
            self.case = None

        def startTest(self, test):
            super().startTest(test)
            self.case = ElementTree.SubElement(self.root, "testcase",
                                               classname=type(test).__name__,
                                               name=test.id().rsplit(".", 1)[-1])

        def note(self, kind, test, text=""):
            case = self.case
            if case is None or not isinstance(test, unittest.TestCase):
                # A module or class that could not be set up: a case of its own.
                case = ElementTree.SubElement(self.root, "testcase", name=str(test))
            if case.find(kind) is None:
                ElementTree.SubElement(case, kind).text = str(text)

        def addError(self, test, err):
            super().addError(test, err)
            self.note("error", test, err[1])

        def addFailure(self, test, err):
            super().addFailure(test, err)
            self.note("failure", test, err[1])

        def addSubTest(self, test, subtest, err):
            super().addSubTest(test, subtest, err)
            if err is not None:
                self.note("failure", test, f"{subtest}: {err[1]}")

        def addUnexpectedSuccess(self, test):
            super().addUnexpectedSuccess(test)
            self.note("failure", test, "passed, though marked as an expected failure")

        def addSkip(self, test, reason):
            super().addSkip(test, reason)
            self.note("skipped", test, reason)

    suite = unittest.defaultTestLoader.discover(str(pathlib.Path(path).parent),
                                                pattern=pathlib.Path(path).name)
    result = unittest.TextTestRunner(resultclass=Recorder, verbosity=2).run(suite)
    ElementTree.ElementTree(result.root).write(report, encoding="unicode")
    return 0 if result.wasSuccessful() else 1


def batches(suites):
    """The suites in their order, together with those behind them that may run beside them."""
    rest = list(suites)
    while rest:
        most = rest[0].beside
        size = 1
        while size < min(most, len(rest)) and rest[size].beside == most:
            size += 1
        yield rest[:size]
        rest = rest[size:]


def main():
    parser = argparse.ArgumentParser(description="Runs the test suites and adds up their reports.")
    parser.add_argument("--long", action="store_true",
                        help="also fuzz, build the container image, soak, and run deploys and "
                             "pressure at full size")
    parser.add_argument("--only", action="append", metavar="PATTERN", default=[],
                        help="only suites whose name matches (shell pattern; may be repeated)")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    parser.add_argument("--unittest", help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.unittest:
        return run_unittest(options.unittest, options.report)

    suites = all_suites()
    if options.only:
        suites = [suite for suite in suites
                  if any(fnmatch.fnmatch(suite.name, pattern) for pattern in options.only)]
    elif not options.long and not options.list:
        suites = [suite for suite in suites if not suite.long]
    if options.list:
        for suite in suites:
            print(suite.name + ("  (--long)" if suite.long else ""))
        return 0

    RESULTS.mkdir(parents=True, exist_ok=True)
    total = Outcome()
    failures = []
    started = time.monotonic()
    for batch in batches(suites):
        print(f"{batch[0].name:<28}", end="", flush=True)
        with concurrent.futures.ThreadPoolExecutor(len(batch)) as pool:
            outcomes = list(pool.map(run, batch))
        for suite, outcome in zip(batch, outcomes):
            name = "" if suite is batch[0] else f"{suite.name:<28}"
            print(f"{name}{'FAIL' if outcome.failed else 'ok':<5}{outcome.passed:5} passed"
                  f"{outcome.failed:4} failed{outcome.seconds:8.1f} s"
                  + (f"  ({outcome.skipped} skipped)" if outcome.skipped else ""), flush=True)
            total.passed += outcome.passed
            total.failed += outcome.failed
            if outcome.failed:
                failures.append((suite, outcome))
    total.seconds = time.monotonic() - started

    for suite, outcome in failures:
        print(f"\n--- {suite.name} ---")
        for complaint in outcome.complaints:
            print(f"  {complaint}")
        for line in tail(suite):
            print(f"  | {line}")
    if not suites:
        print("no suite matches")
        total.failed = 1
    print(f"\n{len(suites)} suites in {total.seconds:.0f} s; logs in build/test-results/")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
