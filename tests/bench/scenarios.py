"""What is measured: the scenarios of the benchmark and the figures that each one gives."""

import dataclasses

# Peers whose best is what Sluice is compared with.
PEERS = ("haproxy", "haproxy-splice", "nginx")


@dataclasses.dataclass(frozen=True)
class Figure:
    key: str  # in the result of a turn
    title: str
    digits: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    mode: str  # of bench_load
    title: str
    headlines: tuple  # of Figure: those compared; the first has its spread in the table
    others: tuple  # of Figure
    tls: bool = False
    options: tuple = ()  # for bench_load
    contenders: tuple = ("sluice", *PEERS, "relay", "direct")


LATENCY = (Figure("p50_us", "p50 us", 0), Figure("p99_us", "p99 us", 0),
           Figure("p999_us", "p99.9 us", 0))
BUSY = Figure("busy", "core busy", 2)
TLS_FIELD = ("sluice", "haproxy", "nginx")


def echo(name, title, options, **more):
    return Scenario(name, "echo", title,
                    (Figure("cpu_us", "CPU us/round trip", 2),),
                    (Figure("per_second", "round trips/s", 0), *LATENCY, BUSY),
                    options=options, **more)


def bulk(direction, title):
    figures = ((Figure("cpu_us", "CPU us/MB", 0),),
               (Figure("mib_per_second", "MiB/s", 0), BUSY))
    options = ("--direction", direction)
    return [
        Scenario(f"bulk-{direction}", "bulk", f"1 MiB messages {title}", *figures,
                 options=options),
        Scenario(f"bulk-{direction}-tls", "bulk",
                 f"1 MiB messages {title}, TLS 1.3 to the client", *figures, options=options,
                 tls=True, contenders=TLS_FIELD),
    ]


def connect(name, title, **more):
    return Scenario(name, "connect", title,
                    (Figure("cpu_us", "CPU us/connection", 1),),
                    (Figure("per_second", "connections/s", 0), *LATENCY, BUSY), **more)


def idle(name, title, **more):
    return Scenario(name, "idle", title,
                    (Figure("session_bytes", "bytes/session", 0),
                     Figure("burst_bytes", "bytes/session after a burst", 0),
                     Figure("rss_kib", "resident KiB at start", 0)),
                    (Figure("empty_kib", "of it in user space", 0),), **more)


def http(name, title, options, **more):
    return Scenario(name, "http", title,
                    (Figure("cpu_us", "CPU us/request", 2),),
                    (Figure("per_second", "requests/s", 0), *LATENCY, BUSY),
                    options=options, contenders=("sluice", "haproxy", "nginx", "relay", "direct"),
                    **more)


BULK = {direction: bulk(direction, title)
        for direction, title in (("down", "to the clients"), ("up", "to the backend"),
                                 ("both", "both ways at once"))}

SCENARIOS = [
    echo("echo64", "64-byte echo, 200 connections", ("--connections", 200, "--size", 64)),
    echo("echo4k", "4 KiB echo, 200 connections", ("--connections", 200, "--size", 4096)),
    echo("echo64-depth16", "64-byte echo, 100 connections with 16 messages under way",
         ("--connections", 100, "--size", 64, "--depth", 16)),
    Scenario("rate10k", "rate", "64-byte echo at a fixed 10,000/s over 1,000 connections",
             (Figure("cpu_us", "CPU us/round trip", 2), *LATENCY[:2]),
             (LATENCY[2], BUSY, Figure("lag_p99_us", "load late, p99 us", 0)),
             options=("--connections", 1000, "--rate", 10000)),
    echo("echo64-tls", "64-byte echo, 200 connections, TLS 1.3 to the client",
         ("--connections", 200, "--size", 64), tls=True, contenders=TLS_FIELD),
    *(pair[0] for pair in BULK.values()),
    *(pair[1] for pair in BULK.values()),
    connect("connect", "connect, upgrade, CLOSE"),
    connect("connect-tls-full", "connect, full TLS 1.3 handshake, upgrade, CLOSE", tls=True,
            options=("--handshake", "full"), contenders=TLS_FIELD),
    connect("connect-tls-resumed", "connect, resumed TLS 1.3 handshake, upgrade, CLOSE", tls=True,
            options=("--handshake", "resumed"), contenders=TLS_FIELD),
    idle("idle", "idle sessions", contenders=("sluice", "haproxy", "nginx", "relay")),
    idle("idle-tls", "idle sessions, TLS 1.3 to the client", tls=True, contenders=TLS_FIELD),
    http("http-keepalive", "GET of 1 KiB over 100 connections that are kept",
         ("--connections", 100, "--size", 1024)),
    Scenario("idle-sse", "events", "idle streams of server-sent events, after their first one",
             (Figure("session_bytes", "bytes/stream", 0),),
             (Figure("rss_kib", "resident KiB at start", 0),
              Figure("empty_kib", "of it in user space", 0)),
             contenders=("sluice", "haproxy", "nginx")),
    Scenario("drain", "drain", "1,000 sessions with 1,000 messages/s while the proxy is told to go",
             (Figure("unanswered", "messages without answer", 0),),
             (Figure("first_ms", "first end ms", 0), Figure("p50_ms", "half ms", 0),
              Figure("last_ms", "last end ms", 0), Figure("exit_ms", "process gone ms", 0)),
             contenders=("sluice", "haproxy", "nginx")),
    echo("workers2", "64-byte echo, 200 connections, everything on the same two cores",
         ("--connections", 200, "--size", 64), contenders=("1 worker", "2 workers")),
]
