"""Who is measured, and how each one is started: pinned to its cores, on loopback and free ports."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PATIENCE = 10  # seconds for a process to start or to end


class Failure(Exception):
    """Something that makes a figure worthless; one sentence."""


def make_certificate(folder, name):
    """PEM files for bench.test: the certificate, its key, and both in one."""
    chain, key, both = (folder / f"{name}-{what}.pem" for what in ("chain", "key", "both"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench.test",
                    "-addext", "subjectAltName=DNS:bench.test", "-keyout", key, "-out", chain],
                   check=True, capture_output=True)
    both.write_text(chain.read_text() + key.read_text())
    return chain, key, both


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(cores, command, **options):
    """A child pinned to `cores`, as taskset names them; killed at the end, with the processes it
    started."""
    process = subprocess.Popen(["taskset", "-c", str(cores), *map(str, command)],
                               start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own group: start_new_session
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


@contextlib.contextmanager
def tool_with_port(cores, command):
    """A tool of ours that prints its port when it serves."""
    with running(cores, command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline().strip()
        if not line:
            raise Failure(f"{command[0].name} did not start")
        yield process, int(line)


def wait_until_serving(process, port, log):
    """Until something is answered, be it a refusal: a connection alone may only have been queued
    for a worker that does not run yet."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with (contextlib.suppress(OSError),
              socket.create_connection(("127.0.0.1", port), 1) as probe):
            probe.sendall(b"GET / HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n")
            probe.recv(1)
            return
        time.sleep(0.02)  # between two tries, not instead of one
    raise Failure(f"{process.args[3]} does not serve:\n{log.read_text()}")


@dataclasses.dataclass(frozen=True)
class Contender:
    name: str
    kind: str  # "sluice", "haproxy", "nginx" or "relay"
    program: pathlib.Path
    version: str
    values: tuple = ()  # pairs that go into the configuration

    @property
    def graceful_signal(self):
        """How its manual says it is told to end without breaking what goes on."""
        return {"haproxy": signal.SIGUSR1, "nginx": signal.SIGQUIT}.get(self.kind, signal.SIGTERM)

    def command(self, config):
        return [self.program, *{
            "sluice": ["run", "-c", config],
            "haproxy": ["-db", "-q", "-f", config],
            "nginx": ["-p", config.parent, "-c", config, "-e", "stderr"],
        }[self.kind]]

    def tls_text(self, certificate):
        if certificate is None:
            return ""
        chain, key, both = certificate
        return {
            "sluice": f'tls.certificates = [{{ chain = "{chain}", key = "{key}" }}]',
            "haproxy": f"ssl crt {both} alpn http/1.1",
            # Without TLS 1.3 by default before 1.23.4.
            "nginx": f"ssl; ssl_certificate {chain}; ssl_certificate_key {key}; "
                     "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m",
        }[self.kind]

    @contextlib.contextmanager
    def serving(self, cores, backend, certificate=None, window="30s"):
        """Yields the process and the port that it takes clients on. `certificate`: chain, key, and
        both in one file, or None for plain; `window`: how long it may take to end in order."""
        if self.kind == "relay":
            with tool_with_port(cores, [self.program, "--backend", backend]) as relay:
                yield relay
            return
        template = {"sluice": "sluice.toml.in", "haproxy": "haproxy.cfg.in",
                    "nginx": "nginx.conf.in"}[self.kind]
        with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
            port = free_port()
            text = (HERE / "conf" / template).read_text()
            for name, value in {"PORT": port, "ADMIN": free_port(), "BACKEND": backend,
                                "DIR": folder, "TLS": self.tls_text(certificate),
                                "WINDOW": window, "WORKERS": 1, "SPLICE": "",
                                **dict(self.values)}.items():
                text = text.replace(f"@{name}@", str(value))
            config = pathlib.Path(folder) / template.removesuffix(".in")
            config.write_text(text)
            log = pathlib.Path(folder) / "output.log"
            with log.open("w") as output, running(cores, self.command(config), stdout=output,
                                                  stderr=output) as process:
                wait_until_serving(process, port, log)
                yield process, port


def first_line(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).splitlines()[0].strip()


def find_contenders(sluice, haproxy, nginx, tools):
    """By name, those whose programs are there; one that is not is left out, aloud."""
    if not sluice.exists():
        raise Failure(f"{sluice} is not there: ./dev build makes it")
    version = first_line([sluice, "--version"])
    found = [Contender("sluice", "sluice", sluice, version)]
    found += [Contender(f"{count} worker{'s' if count > 1 else ''}", "sluice", sluice, version,
                        (("WORKERS", count),)) for count in (1, 2)]
    for kind, wanted in (("haproxy", haproxy), ("nginx", nginx)):
        program = shutil.which(wanted, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            print(f"note: {wanted} is not there; measuring without it", file=sys.stderr)
            continue
        version = first_line([program, "-v"]).removesuffix(" - https://haproxy.org/")
        version = version.removeprefix("nginx version: ")
        found.append(Contender(kind, kind, pathlib.Path(program), version))
        if kind == "haproxy":
            # With splice-auto 2.6 never splices what follows a 101.
            found.append(Contender("haproxy-splice", kind, pathlib.Path(program), version,
                                   (("SPLICE",
                                     "option splice-request\n    option splice-response"),)))
    found.append(Contender("relay", "relay", tools / "bench_relay_floor",
                           "bare epoll relay, no HTTP"))
    return {one.name: one for one in found}
