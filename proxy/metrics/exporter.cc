#include "proxy/metrics/exporter.h"

#include <algorithm>
#include <cassert>
#include <initializer_list>
#include <map>
#include <utility>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include "proxy/metrics/process_usage.h"

namespace sluice::metrics {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Families = std::vector<MetricFamily>;
using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// One block for each worker, null where that worker never asked.
template <class Block>
using PerWorker = std::vector<std::unique_ptr<Block>>;

// On a cache line of its own, because the gauges of two workers are made one after the other.
struct alignas(64) LoneGauge {
  Gauge gauge;
};

struct ListenerShards {
  bool tls = false;
  bool proxy_protocol = false;  // it has, or has had: a series that was shown once stays
  PerWorker<ListenerBlock> blocks;
};

// What is counted at one backend.
struct BackendShards {
  PerWorker<BackendBlock> blocks;
  std::map<std::string, PerWorker<LoneGauge>> sessions;  // by route
};

using PoolBackend = std::pair<std::string, std::string>;

template <class Block>
Block& BlockOf(PerWorker<Block>& blocks, std::size_t worker, std::size_t workers) {
  assert(worker < workers);
  blocks.resize(workers);
  if (!blocks[worker]) {
    blocks[worker] = std::make_unique<Block>();
  }
  return *blocks[worker];
}

// The sum over workers of what `get` finds in a block.
template <class Block, class Get>
double Sum(const PerWorker<Block>& blocks, Get get) {
  double sum = 0;
  for (const auto& block : blocks) {
    if (block) {
      sum += static_cast<double>(get(*block).value());
    }
  }
  return sum;
}

// Fills one family. Families are written in the order in which they are begun.
class FamilyFiller {
 public:
  FamilyFiller(Families& families, MetricType type, std::string_view name, std::string_view help)
      : families_(families), index_(families.size()) {
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
  }

  void Add(Labels labels, double value) {
    ClientMetric& metric = NewMetric(labels);
    if (families_[index_].type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
  }

  // The histograms that `get` finds in the blocks, as one.
  template <class Bounds, class Block, class Get>
  void AddHistogram(Labels labels, const Bounds& bounds, const PerWorker<Block>& blocks, Get get) {
    ClientMetric::Histogram& out = NewMetric(labels).histogram;
    for (const double bound : bounds) {
      out.bucket.push_back({0, bound});
    }
    for (const auto& block : blocks) {
      if (block) {
        AddTo(out, get(*block));
      }
    }
  }

  // One histogram as it is.
  template <class Bounds, class Source>
  void AddHistogram(Labels labels, const Bounds& bounds, const Source& source) {
    ClientMetric::Histogram& out = NewMetric(labels).histogram;
    for (const double bound : bounds) {
      out.bucket.push_back({0, bound});
    }
    AddTo(out, source);
  }

 private:
  // The count is the sum of the buckets read here, so that it always agrees with them although
  // workers count on meanwhile. The +Inf bucket is written by the serializer.
  template <class Source>
  static void AddTo(ClientMetric::Histogram& out, const Source& source) {
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i < out.bucket.size(); ++i) {
      cumulative += source.bucket(i);
      out.bucket[i].cumulative_count += cumulative;
    }
    out.sample_count += cumulative + source.bucket(out.bucket.size());
    out.sample_sum += static_cast<double>(source.sum());
  }

  ClientMetric& NewMetric(Labels labels) {
    ClientMetric& metric = families_[index_].metric.emplace_back();
    for (const auto& [name, value] : labels) {
      metric.label.push_back({std::string(name), std::string(value)});
    }
    return metric;
  }

  Families& families_;
  std::size_t index_;
};

FamilyFiller CounterFamily(Families& out, std::string_view name, std::string_view help) {
  return {out, MetricType::Counter, name, help};
}

FamilyFiller GaugeFamily(Families& out, std::string_view name, std::string_view help) {
  return {out, MetricType::Gauge, name, help};
}

FamilyFiller HistogramFamily(Families& out, std::string_view name, std::string_view help) {
  return {out, MetricType::Histogram, name, help};
}

constexpr std::string_view Bool(bool v) {
  return v ? "true" : "false";
}

// Calls f(value) for every value of an enum that ends in kCount.
template <class E, class F>
void ForEach(F f) {
  for (std::size_t i = 0; i < kCountOf<E>; ++i) {
    f(static_cast<E>(i));
  }
}

template <class F>
void ForEachSide(F f) {
  f(Side::kClient);
  f(Side::kBackend);
}

constexpr std::array<std::string_view, 6> kStatusClasses{"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
constexpr std::array<std::string_view, 2> kTlsVersions{"1.2", "1.3"};
constexpr std::array<std::string_view, 2> kDrainHow{"clean", "forced"};
constexpr std::array<std::string_view, 2> kPingResults{"answered", "timeout"};

// Close codes whose series are there from the start; the others appear when they are first seen.
// A counter never falls, so a series that was shown once stays.
constexpr std::array<std::uint16_t, 4> kBaseCloseCodes{1000, 1001, 1012, 0};

bool IsBaseCloseSlot(std::size_t slot) {
  return std::any_of(kBaseCloseCodes.begin(), kBaseCloseCodes.end(),
                     [slot](std::uint16_t code) { return CloseSlot(code) == slot; });
}

using ListenerTable = std::map<std::string, ListenerShards>;
using RouteTable = std::map<std::string, PerWorker<RouteBlock>>;
using BackendTable = std::map<PoolBackend, std::shared_ptr<BackendShards>>;
using PickTable = std::map<std::string, PerEnum<PickHow, double>>;  // by pool
using WorkerTable = PerWorker<WorkerBlock>;

void AppendConnections(Families& out, const ListenerTable& listeners,
                       const std::vector<BackendStatus>& backends, std::int64_t legs_to_removed) {
  FamilyFiller open = GaugeFamily(
      out, "sluice_connections_open",
      "Connections open now: of clients by listener, and legs to backends (listener is empty).");
  for (const auto& [name, shards] : listeners) {
    open.Add({{"side", "client"}, {"tls", Bool(shards.tls)}, {"listener", name}},
             Sum(
                 shards.blocks, [](const auto& b) -> auto& { return b.connections_open; }));
  }
  // Of backends that are gone it is not known any more what they spoke.
  std::array<double, 2> legs{static_cast<double>(legs_to_removed), 0};
  for (const BackendStatus& backend : backends) {
    legs[backend.tls ? 1 : 0] += static_cast<double>(backend.open);
  }
  open.Add({{"side", "backend"}, {"tls", "false"}, {"listener", ""}}, legs[0]);
  open.Add({{"side", "backend"}, {"tls", "true"}, {"listener", ""}}, legs[1]);

  FamilyFiller accepts =
      CounterFamily(out, "sluice_accepts_total", "Client connections accepted, by listener.");
  for (const auto& [name, shards] : listeners) {
    accepts.Add({{"listener", name}},
                Sum(
                    shards.blocks, [](const auto& b) -> auto& { return b.accepts; }));
  }

  FamilyFiller headers =
      CounterFamily(out, "sluice_proxy_headers_total",
                    "Connections to listeners that want a PROXY header, by what came of it.");
  for (const auto& [name, shards] : listeners) {
    if (shards.proxy_protocol) {
      ForEach<ProxyHeader>([&, &name = name, &shards = shards](ProxyHeader result) {
        headers.Add({{"listener", name}, {"result", Name(result)}},
                    Sum(
                        shards.blocks, [result](const auto& b) -> auto& {
                          return b.proxy_headers[result];
                        }));
      });
    }
  }
}

void AppendTls(Families& out, const ListenerTable& listeners,
               const std::vector<ProcessStatus::Certificate>& certificates) {
  FamilyFiller handshakes = CounterFamily(
      out, "sluice_tls_handshakes_total",
      "TLS handshakes with clients by result; version and resumed are known of finished ones.");
  for (const auto& [name, shards] : listeners) {
    if (!shards.tls) {
      continue;
    }
    for (std::size_t v = 0; v < kTlsVersions.size(); ++v) {
      handshakes.Add({{"listener", name},
                      {"result", "ok"},
                      {"version", kTlsVersions[v]},
                      {"resumed", "false"}},
                     Sum(
                         shards.blocks, [v](const auto& b) -> auto& { return b.tls_full[v]; }));
      handshakes.Add(
          {{"listener", name}, {"result", "ok"}, {"version", kTlsVersions[v]}, {"resumed", "true"}},
          Sum(
              shards.blocks, [v](const auto& b) -> auto& { return b.tls_resumed[v]; }));
    }
    for (const TlsResult result : {TlsResult::kFailed, TlsResult::kTimeout}) {
      handshakes.Add(
          {{"listener", name}, {"result", Name(result)}, {"version", "none"}, {"resumed", "false"}},
          Sum(
              shards.blocks, [result](const auto& b) -> auto& { return b.tls_failed[result]; }));
    }
  }

  FamilyFiller seconds = HistogramFamily(out, "sluice_tls_handshake_seconds",
                                         "Time from accept to a finished TLS handshake.");
  for (const auto& [name, shards] : listeners) {
    if (shards.tls) {
      seconds.AddHistogram(
          {{"listener", name}}, kLatencyBounds, shards.blocks,
          [](const auto& b) -> auto& { return b.tls_handshake_seconds; });
    }
  }

  FamilyFiller expiry = GaugeFamily(out, "sluice_tls_certificate_expiry_timestamp_seconds",
                                    "When a certificate expires, Unix time.");
  for (const ProcessStatus::Certificate& certificate : certificates) {
    expiry.Add({{"listener", certificate.listener}, {"name", certificate.name}},
               certificate.not_after);
  }
}

void AppendUpgrades(Families& out, const RouteTable& routes) {
  FamilyFiller upgrades = CounterFamily(out, "sluice_upgrades_total",
                                        "WebSocket upgrade requests by what became of them.");
  for (const auto& [route, blocks] : routes) {
    ForEach<UpgradeOutcome>([&, &route = route, &blocks = blocks](UpgradeOutcome outcome) {
      upgrades.Add({{"route", route}, {"outcome", Name(outcome)}},
                   Sum(
                       blocks, [outcome](const auto& b) -> auto& { return b.upgrades[outcome]; }));
    });
  }

  FamilyFiller seconds =
      HistogramFamily(out, "sluice_upgrade_seconds",
                      "Time from a complete upgrade request to the 101 sent to the client.");
  for (const auto& [route, blocks] : routes) {
    seconds.AddHistogram(
        {{"route", route}}, kLatencyBounds, blocks,
        [](const auto& b) -> auto& { return b.upgrade_seconds; });
  }
}

void AppendHttp(Families& out, const RouteTable& routes) {
  FamilyFiller requests = CounterFamily(
      out, "sluice_http_requests_total",
      "Requests not answered with 101, by class of the status; none: no answer was sent.");
  for (const auto& [route, blocks] : routes) {
    for (std::size_t i = 0; i < kStatusClasses.size(); ++i) {
      requests.Add({{"route", route}, {"code", kStatusClasses[i]}},
                   Sum(
                       blocks, [i](const auto& b) -> auto& { return b.http_requests[i]; }));
    }
  }

  FamilyFiller seconds = HistogramFamily(
      out, "sluice_http_request_seconds",
      "Time from a complete request head to the end of an answer other than 101, without event "
      "streams.");
  for (const auto& [route, blocks] : routes) {
    seconds.AddHistogram(
        {{"route", route}}, kLatencyBounds, blocks,
        [](const auto& b) -> auto& { return b.http_request_seconds; });
  }

  FamilyFiller in_flight =
      GaugeFamily(out, "sluice_http_requests_in_flight",
                  "Plain HTTP requests between their head and the end of the answer, without event "
                  "streams.");
  FamilyFiller streams =
      GaugeFamily(out, "sluice_event_streams_open", "Answers that are endless event streams now.");
  for (const auto& [route, blocks] : routes) {
    in_flight.Add({{"route", route}},
                  Sum(
                      blocks, [](const auto& b) -> auto& { return b.http_requests_in_flight; }));
    streams.Add({{"route", route}},
                Sum(
                    blocks, [](const auto& b) -> auto& { return b.event_streams_open; }));
  }

  FamilyFiller lives =
      HistogramFamily(out, "sluice_event_stream_seconds",
                      "How long event streams lived, from the request head to their end.");
  for (const auto& [route, blocks] : routes) {
    lives.AddHistogram(
        {{"route", route}}, kLifeBounds, blocks,
        [](const auto& b) -> auto& { return b.event_stream_seconds; });
  }

  FamilyFiller bytes = CounterFamily(
      out, "sluice_http_bytes_total",
      "Content of plain HTTP requests and answers relayed, by the side it came from.");
  for (const auto& [route, blocks] : routes) {
    ForEachSide([&, &route = route, &blocks = blocks](Side from) {
      bytes.Add({{"route", route}, {"from", Name(from)}},
                Sum(
                    blocks, [from](const auto& b) -> auto& { return b.http_bytes[Index(from)]; }));
    });
  }
}

void AppendAuth(Families& out, const RouteTable& routes) {
  FamilyFiller checks = CounterFamily(
      out, "sluice_auth_checks_total",
      "Requests that an auth server was asked about, by what came of it; only those allowed went "
      "on.");
  for (const auto& [route, blocks] : routes) {
    ForEach<AuthResult>([&, &route = route, &blocks = blocks](AuthResult result) {
      checks.Add({{"route", route}, {"result", Name(result)}},
                 Sum(
                     blocks, [result](const auto& b) -> auto& { return b.auth_checks[result]; }));
    });
  }

  FamilyFiller seconds = HistogramFamily(out, "sluice_auth_seconds",
                                         "Time from a complete request head to what the auth "
                                         "server said, or that it said nothing.");
  for (const auto& [route, blocks] : routes) {
    seconds.AddHistogram(
        {{"route", route}}, kLatencyBounds, blocks,
        [](const auto& b) -> auto& { return b.auth_seconds; });
  }
}

void AppendLearned(Families& out, const RouteTable& routes,
                   const std::vector<ProcessStatus::Learned>& tables) {
  FamilyFiller learned = CounterFamily(out, "sluice_affinity_learned_total",
                                       "Answers of backends whose token was learned.");
  for (const auto& [route, blocks] : routes) {
    learned.Add({{"route", route}}, Sum(
                                        blocks, [](const auto& b) -> auto& { return b.learned; }));
  }

  FamilyFiller evicted = CounterFamily(
      out, "sluice_affinity_learned_evicted_total",
      "Learned tokens forgotten before their time because the route has as many as it may have.");
  for (const auto& [route, blocks] : routes) {
    evicted.Add({{"route", route}},
                Sum(
                    blocks, [](const auto& b) -> auto& { return b.learned_evicted; }));
  }

  FamilyFiller unreadable = CounterFamily(
      out, "sluice_affinity_unreadable_total",
      "Answers that should have handed out a token and taught nothing, by why: encoded has a "
      "Content-Encoding, no_token is no JSON object with such a string in it.");
  for (const auto& [route, blocks] : routes) {
    ForEach<Unreadable>([&, &route = route, &blocks = blocks](Unreadable reason) {
      unreadable.Add(
          {{"route", route}, {"reason", Name(reason)}},
          Sum(
              blocks, [reason](const auto& b) -> auto& { return b.unreadable[reason]; }));
    });
  }

  FamilyFiller picks = CounterFamily(
      out, "sluice_affinity_learned_picks_total",
      "Requests with a learned token by where they went: home has handed it out, fallback is "
      "another backend, because that one may not be chosen; ended ones were answered 503, because "
      "their session has ended with a drain.");
  for (const auto& [route, blocks] : routes) {
    ForEach<LearnedPick>([&, &route = route, &blocks = blocks](LearnedPick how) {
      picks.Add({{"route", route}, {"how", Name(how)}},
                Sum(
                    blocks, [how](const auto& b) -> auto& { return b.learned_picks[how]; }));
    });
  }

  FamilyFiller entries =
      GaugeFamily(out, "sluice_affinity_learned_entries", "Learned tokens that are remembered.");
  for (const ProcessStatus::Learned& one : tables) {
    entries.Add({{"route", one.route}}, static_cast<double>(one.entries));
  }
}

void AppendSessions(Families& out, const RouteTable& routes, const BackendTable& backends) {
  FamilyFiller open = GaugeFamily(out, "sluice_sessions_open",
                                  "WebSocket sessions relayed now, by route and backend.");
  for (const auto& [key, shards] : backends) {
    for (const auto& [route, gauges] : shards->sessions) {
      open.Add({{"route", route}, {"pool", key.first}, {"backend", key.second}},
               Sum(
                   gauges, [](const auto& g) -> auto& { return g.gauge; }));
    }
  }

  FamilyFiller messages =
      CounterFamily(out, "sluice_messages_total",
                    "WebSocket messages and control frames relayed, by the side they came from.");
  for (const auto& [route, blocks] : routes) {
    ForEachSide([&, &route = route, &blocks = blocks](Side from) {
      ForEach<MessageKind>([&](MessageKind kind) {
        messages.Add({{"route", route}, {"from", Name(from)}, {"opcode", Name(kind)}},
                     Sum(
                         blocks, [ from, kind ](const auto& b) -> auto& {
                           return b.messages[Index(from)][kind];
                         }));
      });
    });
  }

  FamilyFiller bytes = CounterFamily(
      out, "sluice_bytes_total",
      "Bytes of WebSocket frames relayed, headers included, by the side they came from.");
  for (const auto& [route, blocks] : routes) {
    ForEachSide([&, &route = route, &blocks = blocks](Side from) {
      bytes.Add({{"route", route}, {"from", Name(from)}},
                Sum(
                    blocks, [from](const auto& b) -> auto& { return b.bytes[Index(from)]; }));
    });
  }

  FamilyFiller sizes = HistogramFamily(out, "sluice_message_bytes",
                                       "Payload of a data message, by the side it came from.");
  for (const auto& [route, blocks] : routes) {
    ForEachSide([&, &route = route, &blocks = blocks](Side from) {
      sizes.AddHistogram(
          {{"route", route}, {"from", Name(from)}}, kMessageBounds,
          blocks, [from](const auto& b) -> auto& { return b.message_bytes[Index(from)]; });
    });
  }

  FamilyFiller closes =
      CounterFamily(out, "sluice_closes_total",
                    "Sessions ended, by close code and who closed first; none: without any CLOSE.");
  for (const auto& [route, blocks] : routes) {
    for (std::size_t slot = 0; slot < kCloseSlots; ++slot) {
      ForEach<ClosedBy>([&, &route = route, &blocks = blocks](ClosedBy by) {
        const double n = Sum(
            blocks, [ slot, by ](const auto& b) -> auto& { return b.closes[slot][by]; });
        if (n > 0 || IsBaseCloseSlot(slot)) {
          closes.Add({{"route", route}, {"code", CloseSlotName(slot)}, {"by", Name(by)}}, n);
        }
      });
    }
  }

  FamilyFiller torn = CounterFamily(
      out, "sluice_torn_total",
      "Sessions whose client was cut inside a frame, so that no CLOSE could be sent.");
  for (const auto& [route, blocks] : routes) {
    ForEach<TornReason>([&, &route = route, &blocks = blocks](TornReason reason) {
      torn.Add({{"route", route}, {"reason", Name(reason)}},
               Sum(
                   blocks, [reason](const auto& b) -> auto& { return b.torn[reason]; }));
    });
  }

  FamilyFiller own =
      CounterFamily(out, "sluice_own_closes_total",
                    "Sessions that kept the rules and were closed by Sluice, by cause.");
  for (const auto& [route, blocks] : routes) {
    ForEach<OwnClose>([&, &route = route, &blocks = blocks](OwnClose cause) {
      own.Add({{"route", route}, {"cause", Name(cause)}},
              Sum(
                  blocks, [cause](const auto& b) -> auto& { return b.own_closes[cause]; }));
    });
  }

  FamilyFiller pings = CounterFamily(
      out, "sluice_pings_total", "Pings of Sluice's own by the side asked and what came of them.");
  for (const auto& [route, blocks] : routes) {
    for (const Side side : {Side::kClient, Side::kBackend}) {
      for (std::size_t i = 0; i < kPingResults.size(); ++i) {
        pings.Add(
            {{"route", route}, {"side", Name(side)}, {"result", kPingResults[i]}},
            Sum(
                blocks, [ side, i ](const auto& b) -> auto& { return b.pings[Index(side)][i]; }));
      }
    }
  }

  FamilyFiller client_rtt = HistogramFamily(out, "sluice_client_rtt_seconds",
                                            "Time from a ping of Sluice's to the client's pong.");
  FamilyFiller backend_rtt = HistogramFamily(out, "sluice_backend_rtt_seconds",
                                             "Time from a ping of Sluice's to the backend's pong.");
  for (const auto& [route, blocks] : routes) {
    client_rtt.AddHistogram(
        {{"route", route}}, kLatencyBounds, blocks,
        [](const auto& b) -> auto& { return b.rtt_seconds[Index(Side::kClient)]; });
    backend_rtt.AddHistogram(
        {{"route", route}}, kLatencyBounds, blocks,
        [](const auto& b) -> auto& { return b.rtt_seconds[Index(Side::kBackend)]; });
  }

  FamilyFiller seconds = HistogramFamily(out, "sluice_session_seconds",
                                         "How long sessions lived, from the 101 to their end.");
  for (const auto& [route, blocks] : routes) {
    seconds.AddHistogram(
        {{"route", route}}, kLifeBounds, blocks,
        [](const auto& b) -> auto& { return b.session_seconds; });
  }

  FamilyFiller pauses =
      CounterFamily(out, "sluice_backpressure_pauses_total",
                    "Times a side was not read any more because the other one did not keep up.");
  for (const auto& [route, blocks] : routes) {
    ForEachSide([&, &route = route, &blocks = blocks](Side side) {
      pauses.Add({{"route", route}, {"side", Name(side)}},
                 Sum(
                     blocks, [side](const auto& b) -> auto& {
                       return b.backpressure_pauses[Index(side)];
                     }));
    });
  }
}

// The largest of open / (share * total) over the backends that take sessions, where a share is a
// weight over the sum of weights: 1 is a perfect balance, and what an idle pool has.
double LoadSkew(const std::vector<BackendStatus>& backends, std::string_view pool) {
  double weights = 0;
  double total = 0;
  double highest = 0;  // of open / weight
  for (const BackendStatus& backend : backends) {
    if (backend.pool != pool || !backend.up || backend.draining || backend.weight <= 0) {
      continue;
    }
    const auto open = static_cast<double>(std::max<std::int64_t>(backend.open, 0));
    weights += backend.weight;
    total += open;
    highest = std::max(highest, open / backend.weight);
  }
  return total > 0 ? highest * weights / total : 1;
}

void AppendBackendStatus(Families& out, const std::vector<BackendStatus>& backends) {
  struct Row {
    std::string_view name;
    std::string_view help;
    double (*value)(const BackendStatus&);
  };
  static constexpr Row kRows[] = {
      {"sluice_backend_up",
       "1 when the backend may get sessions, 0 when its checks have found it down or it is "
       "ejected.",
       [](const BackendStatus& b) { return b.up ? 1.0 : 0.0; }},
      {"sluice_backend_ejected",
       "1 while the backend gets no new sessions because of what sessions saw of it.",
       [](const BackendStatus& b) { return b.ejected ? 1.0 : 0.0; }},
      {"sluice_backend_draining", "1 while the backend is drained.",
       [](const BackendStatus& b) { return b.draining ? 1.0 : 0.0; }},
      {"sluice_backend_weight", "Weight of the backend in its pool.",
       [](const BackendStatus& b) { return b.weight; }},
      {"sluice_backend_connections_open", "Legs to the backend open now, of all workers.",
       [](const BackendStatus& b) { return static_cast<double>(b.open); }},
  };
  for (const Row& row : kRows) {
    FamilyFiller family = GaugeFamily(out, row.name, row.help);
    for (const BackendStatus& backend : backends) {
      family.Add({{"pool", backend.pool}, {"backend", backend.backend}}, row.value(backend));
    }
  }

  FamilyFiller checks =
      CounterFamily(out, "sluice_health_checks_total", "Checks of a backend by their result.");
  FamilyFiller ejections =
      CounterFamily(out, "sluice_backend_ejections_total",
                    "Times the backend was ejected because of what sessions saw of it.");
  for (const BackendStatus& backend : backends) {
    const auto add = [&](std::string_view result, std::uint64_t count) {
      checks.Add({{"pool", backend.pool}, {"backend", backend.backend}, {"result", result}},
                 static_cast<double>(count));
    };
    add("ok", backend.checks_ok);
    add("failed", backend.checks_failed);
    ejections.Add({{"pool", backend.pool}, {"backend", backend.backend}},
                  static_cast<double>(backend.ejections));
  }

  FamilyFiller skew = GaugeFamily(
      out, "sluice_load_skew_ratio",
      "Largest ratio of a backend's open legs to its share by weight, over the backends of the "
      "pool that take sessions; 1 is balanced or idle.");
  std::vector<std::string_view> pools;
  for (const BackendStatus& backend : backends) {
    if (std::find(pools.begin(), pools.end(), backend.pool) == pools.end()) {
      pools.push_back(backend.pool);
      skew.Add({{"pool", backend.pool}}, LoadSkew(backends, backend.pool));
    }
  }
}

void AddPicks(PerEnum<PickHow, double>& sums, const BackendShards& shards) {
  ForEach<PickHow>([&](PickHow how) {
    sums[how] += Sum(
        shards.blocks, [how](const auto& b) -> auto& { return b.picks[how]; });
  });
}

void AppendBackends(Families& out, const BackendTable& backends, const PickTable& forgotten) {
  FamilyFiller seconds =
      HistogramFamily(out, "sluice_backend_connect_seconds",
                      "Time to connect to a backend, TLS handshake included, where it succeeded.");
  for (const auto& [key, shards] : backends) {
    seconds.AddHistogram(
        {{"pool", key.first}, {"backend", key.second}}, kLatencyBounds, shards->blocks,
        [](const auto& b) -> auto& { return b.connect_seconds; });
  }

  FamilyFiller failures =
      CounterFamily(out, "sluice_backend_failures_total", "Failures of a backend by reason.");
  for (const auto& [key, shards] : backends) {
    ForEach<BackendFailure>([&, &key = key, &shards = shards](BackendFailure reason) {
      failures.Add(
          {{"pool", key.first}, {"backend", key.second}, {"reason", Name(reason)}},
          Sum(
              shards->blocks, [reason](const auto& b) -> auto& { return b.failures[reason]; }));
    });
  }

  FamilyFiller handshakes =
      CounterFamily(out, "sluice_backend_tls_handshakes_total",
                    "TLS handshakes with backends by result; resumed ones are not in ok.");
  for (const auto& [key, shards] : backends) {
    ForEach<BackendTlsResult>([&, &key = key, &shards = shards](BackendTlsResult result) {
      handshakes.Add({{"pool", key.first}, {"backend", key.second}, {"result", Name(result)}},
                     Sum(
                         shards->blocks, [result](const auto& b) -> auto& {
                           return b.tls_handshakes[result];
                         }));
    });
  }

  FamilyFiller retries = CounterFamily(out, "sluice_backend_retries_total",
                                       "Requests that went on to another backend after this one.");
  for (const auto& [key, shards] : backends) {
    retries.Add({{"pool", key.first}, {"backend", key.second}},
                Sum(
                    shards->blocks, [](const auto& b) -> auto& { return b.retries; }));
  }

  FamilyFiller reused =
      CounterFamily(out, "sluice_backend_reused_total",
                    "Plain requests sent over a connection that an earlier one had left.");
  FamilyFiller stale = CounterFamily(
      out, "sluice_backend_stale_total",
      "Plain requests sent again because the connection they reused had ended meanwhile.");
  FamilyFiller idle = GaugeFamily(out, "sluice_backend_idle_connections",
                                  "Connections kept for further plain requests.");
  for (const auto& [key, shards] : backends) {
    const Labels labels{{"pool", key.first}, {"backend", key.second}};
    reused.Add(labels, Sum(
                           shards->blocks, [](const auto& b) -> auto& { return b.reused; }));
    stale.Add(labels, Sum(
                          shards->blocks, [](const auto& b) -> auto& { return b.stale; }));
    idle.Add(labels, Sum(
                         shards->blocks, [](const auto& b) -> auto& { return b.idle; }));
  }

  FamilyFiller picks = CounterFamily(
      out, "sluice_picks_total",
      "Backends chosen: home is the first choice, overflow passed a backend that is full or above "
      "its bounded load, fallback passed one that is unhealthy, draining or was tried already, "
      "panic took one while none was in service.");
  PickTable by_pool = forgotten;
  for (const auto& [key, shards] : backends) {
    AddPicks(by_pool[key.first], *shards);
  }
  for (const auto& [pool, sums] : by_pool) {
    ForEach<PickHow>([&, &pool = pool, &sums = sums](PickHow how) {
      picks.Add({{"pool", pool}, {"how", Name(how)}}, sums[how]);
    });
  }
}

// The sum over workers for each word that one of them registered.
template <class Get>
std::map<std::string_view, double> SumReasons(const WorkerTable& workers, Get get) {
  std::map<std::string_view, double> sums;
  for (const auto& worker : workers) {
    if (worker) {
      const ReasonCounters& reasons = get(*worker);
      for (std::size_t i = 0; i < reasons.size(); ++i) {
        sums[reasons.word(i)] += static_cast<double>(reasons.value(i));
      }
    }
  }
  return sums;
}

void AppendRefusals(Families& out, const WorkerTable& workers) {
  FamilyFiller paused = CounterFamily(
      out, "sluice_accept_paused_total",
      "Times a listener stopped accepting for a while because the system refused, by errno.");
  ForEach<AcceptPause>([&](AcceptPause reason) {
    paused.Add({{"reason", Name(reason)}},
               Sum(
                   workers, [reason](const auto& w) -> auto& { return w.accept_paused[reason]; }));
  });

  FamilyFiller limited = CounterFamily(out, "sluice_rate_limited_total",
                                       "What was refused, paused or closed by a limit, by which.");
  ForEach<Refused>([&](Refused reason) {
    limited.Add({{"reason", Name(reason)}},
                Sum(
                    workers, [reason](const auto& w) -> auto& { return w.rate_limited[reason]; }));
  });

  FamilyFiller parse = CounterFamily(out, "sluice_http_parse_errors_total",
                                     "Requests refused as malformed, by reason.");
  for (const auto& [word, n] : SumReasons(
           workers, [](const auto& w) -> auto& { return w.http_parse_errors; })) {
    parse.Add({{"reason", word}}, n);
  }

  FamilyFiller protocol =
      CounterFamily(out, "sluice_protocol_errors_total",
                    "Sessions closed because a side broke RFC 6455 or a limit on messages.");
  ForEachSide([&](Side side) {
    for (const auto& [word, n] : SumReasons(
             workers, [side](const auto& w) -> auto& { return w.protocol_errors[Index(side)]; })) {
      protocol.Add({{"side", Name(side)}, {"reason", word}}, n);
    }
  });
}

void AppendDrain(Families& out, const WorkerTable& workers, const ProcessStatus& status) {
  FamilyFiller active =
      GaugeFamily(out, "sluice_drain_active", "Drains of that kind that are under way.");
  active.Add({{"what", "process"}}, status.draining ? 1 : 0);
  active.Add({{"what", "backend"}}, static_cast<double>(status.backend_drains));
  GaugeFamily(out, "sluice_drain_sessions_remaining", "Sessions a drain has still to close.")
      .Add({}, Sum(
                   workers, [](const auto& w) -> auto& { return w.drain_sessions_remaining; }));
  FamilyFiller closed = CounterFamily(
      out, "sluice_drain_closed_total",
      "Sessions ended by a drain: clean with both CLOSE handshakes, forced at the deadline.");
  for (std::size_t i = 0; i < kDrainHow.size(); ++i) {
    closed.Add({{"how", kDrainHow[i]}},
               Sum(
                   workers, [i](const auto& w) -> auto& { return w.drain_closed[i]; }));
  }
  GaugeFamily(out, "sluice_drain_seconds", "Time since the drain began; 0 when there is none.")
      .Add({}, status.drain_seconds);
}

void AppendDiscovery(Families& out, const std::vector<ProcessStatus::Discovery>& pools) {
  FamilyFiller updates = CounterFamily(
      out, "sluice_discovery_updates_total",
      "Attempts to learn the backends of a pool from DNS or a file, by what came of them.");
  for (const ProcessStatus::Discovery& one : pools) {
    updates.Add({{"pool", one.pool}, {"result", "changed"}}, static_cast<double>(one.changed));
    updates.Add({{"pool", one.pool}, {"result", "unchanged"}}, static_cast<double>(one.unchanged));
    updates.Add({{"pool", one.pool}, {"result", "failed"}}, static_cast<double>(one.failed));
  }
  FamilyFiller up = GaugeFamily(out, "sluice_discovery_up",
                                "1 when the last attempt to learn the backends succeeded.");
  for (const ProcessStatus::Discovery& one : pools) {
    up.Add({{"pool", one.pool}}, one.up ? 1 : 0);
  }
  FamilyFiller backends =
      GaugeFamily(out, "sluice_discovery_backends", "Backends that are known of the pool.");
  for (const ProcessStatus::Discovery& one : pools) {
    backends.Add({{"pool", one.pool}}, static_cast<double>(one.backends));
  }
  FamilyFiller success = GaugeFamily(out, "sluice_discovery_last_success_timestamp_seconds",
                                     "When the backends were last learned, Unix time; 0: not yet.");
  for (const ProcessStatus::Discovery& one : pools) {
    success.Add({{"pool", one.pool}}, one.last_success);
  }
}

void AppendConfig(Families& out, const ProcessStatus& status) {
  FamilyFiller reloads =
      CounterFamily(out, "sluice_reloads_total", "Reloads of the configuration by result.");
  reloads.Add({{"result", "success"}}, static_cast<double>(status.reloads_ok));
  reloads.Add({{"result", "failure"}}, static_cast<double>(status.reloads_failed));
  FamilyFiller takeovers = CounterFamily(
      out, "sluice_takeovers_total",
      "Takeovers of the listeners: done, this process took over; failed, a successor did not get "
      "ready; refused, somebody was not let.");
  takeovers.Add({{"result", "done"}}, static_cast<double>(status.takeovers_done));
  takeovers.Add({{"result", "failed"}}, static_cast<double>(status.takeovers_failed));
  takeovers.Add({{"result", "refused"}}, static_cast<double>(status.takeovers_refused));
  GaugeFamily(out, "sluice_generation",
              "How many processes have had these listeners one after the other, this one included.")
      .Add({}, status.generation);
  GaugeFamily(out, "sluice_config_last_reload_successful",
              "1 when the last load of the configuration succeeded.")
      .Add({}, status.config_ok ? 1 : 0);
  GaugeFamily(out, "sluice_config_last_reload_success_timestamp_seconds",
              "When the configuration in use was loaded, Unix time.")
      .Add({}, status.config_loaded_at);
}

void AppendLoops(Families& out, const WorkerTable& workers) {
  GaugeFamily(out, "sluice_out_buffer_bytes",
              "Bytes that wait in memory for a peer to take them, all sessions.")
      .Add({}, Sum(
                   workers, [](const auto& w) -> auto& { return w.out_buffer_bytes; }));

  HistogramFamily(out, "sluice_relay_seconds",
                  "Time from a read to the end of the write of the same bytes, sampled.")
      .AddHistogram(
          {}, kRelayBounds, workers, [](const auto& w) -> auto& { return w.relay_seconds; });

  FamilyFiller lag = HistogramFamily(out, "sluice_loop_lag_seconds",
                                     "How late a worker's loop runs a timer that is due.");
  FamilyFiller busy = CounterFamily(out, "sluice_loop_busy_seconds_total",
                                    "Time a worker's loop spent running, not waiting for events.");
  for (std::size_t i = 0; i < workers.size(); ++i) {
    if (workers[i]) {
      const std::string worker = std::to_string(i);
      const WorkerBlock& block = *workers[i];
      lag.AddHistogram({{"worker", worker}}, kRelayBounds, block.loop_lag_seconds);
      busy.Add({{"worker", worker}}, static_cast<double>(block.loop_busy_micros.value()) / 1e6);
    }
  }
}

void AppendProcess(Families& out, const ProcessStatus& status, std::size_t workers,
                   const BuildInfo& build) {
  const ProcessUsage usage = ReadProcessUsage();
  const auto open_fds = static_cast<double>(usage.open_fds);
  const auto gauge = [&out](std::string_view name, std::string_view help, double value) {
    GaugeFamily(out, name, help).Add({}, value);
  };
  gauge("sluice_max_connections", "Client connections held at most.",
        static_cast<double>(status.max_connections));
  gauge("sluice_workers", "Worker threads.", static_cast<double>(workers));
  gauge("sluice_open_fds", "File descriptors open now.", open_fds);
  gauge("sluice_max_fds", "File descriptors allowed, soft limit.", usage.max_fds);
  CounterFamily(out, "sluice_log_dropped_total",
                "Access-log records dropped because the queue was full.")
      .Add({}, static_cast<double>(status.log_dropped));
  GaugeFamily(out, "sluice_build_info", "Always 1; the labels say what is running.")
      .Add({{"version", build.version},
            {"revision", build.revision},
            {"openssl", build.openssl},
            {"libevent", build.libevent}},
           1);
  CounterFamily(out, "process_cpu_seconds_total", "User and system CPU time spent.")
      .Add({}, usage.cpu_seconds);
  gauge("process_open_fds", "File descriptors open now.", open_fds);
  gauge("process_max_fds", "File descriptors allowed, soft limit.", usage.max_fds);
  gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
  gauge("process_virtual_memory_bytes", "Virtual memory.", usage.virtual_bytes);
  gauge("process_start_time_seconds", "When the process started, Unix time.", usage.start_time);
  gauge("process_threads", "Threads of the process.", static_cast<double>(usage.threads));
}

}  // namespace

struct Exporter::Shards {
  ListenerTable listeners;
  RouteTable routes;
  BackendTable backends;
  PickTable forgotten_picks;  // of backends that are forgotten
  WorkerTable workers;

  std::shared_ptr<BackendShards>& Backend(std::string_view pool, std::string_view backend) {
    auto& shards_of = backends[{std::string(pool), std::string(backend)}];
    if (!shards_of) {
      shards_of = std::make_shared<BackendShards>();
    }
    return shards_of;
  }
};

Exporter::Exporter(std::size_t workers, BuildInfo build)
    : build_(std::move(build)), shards_(std::make_unique<Shards>()) {
  // Every worker's block is there from the start: its series begin at 0.
  for (std::size_t i = 0; i < workers; ++i) {
    shards_->workers.push_back(std::make_unique<WorkerBlock>());
  }
}

Exporter::~Exporter() = default;

RouteBlock& Exporter::Route(std::size_t worker, std::string_view route) {
  return BlockOf(shards_->routes[std::string(route)], worker, shards_->workers.size());
}

BackendBlock& Exporter::Backend(std::size_t worker, std::string_view pool,
                                std::string_view backend) {
  return BlockOf(shards_->Backend(pool, backend)->blocks, worker, shards_->workers.size());
}

std::shared_ptr<const void> Exporter::KeepBackend(std::string_view pool, std::string_view backend) {
  return shards_->Backend(pool, backend);
}

void Exporter::ForgetBackend(std::string_view pool, std::string_view backend) {
  const auto found = shards_->backends.find({std::string(pool), std::string(backend)});
  if (found != shards_->backends.end()) {
    AddPicks(shards_->forgotten_picks[found->first.first], *found->second);
    shards_->backends.erase(found);
  }
}

ListenerBlock& Exporter::Listener(std::size_t worker, std::string_view listener, bool tls,
                                  bool proxy_protocol) {
  ListenerShards& shards = shards_->listeners[std::string(listener)];
  shards.tls = tls;
  shards.proxy_protocol = shards.proxy_protocol || proxy_protocol;
  return BlockOf(shards.blocks, worker, shards_->workers.size());
}

WorkerBlock& Exporter::Worker(std::size_t worker) {
  assert(worker < shards_->workers.size());
  return *shards_->workers[worker];
}

Gauge& Exporter::SessionsOpen(std::size_t worker, std::string_view route, std::string_view pool,
                              std::string_view backend) {
  auto& sessions = shards_->Backend(pool, backend)->sessions;
  return BlockOf(sessions[std::string(route)], worker, shards_->workers.size()).gauge;
}

std::size_t Exporter::OpenSessions() const {
  double open = 0;
  for (const auto& [key, shards] : shards_->backends) {
    for (const auto& [route, gauges] : shards->sessions) {
      open += Sum(
          gauges, [](const auto& g) -> auto& { return g.gauge; });
    }
  }
  return static_cast<std::size_t>(std::max(0.0, open));
}

std::string Exporter::Text(const ProcessStatus& status) const {
  const Shards& shards = *shards_;
  Families families;
  AppendConnections(families, shards.listeners, status.backends, status.legs_to_removed);
  AppendTls(families, shards.listeners, status.certificates);
  AppendUpgrades(families, shards.routes);
  AppendHttp(families, shards.routes);
  AppendAuth(families, shards.routes);
  AppendLearned(families, shards.routes, status.learned);
  AppendSessions(families, shards.routes, shards.backends);
  AppendBackendStatus(families, status.backends);
  AppendBackends(families, shards.backends, shards.forgotten_picks);
  AppendDiscovery(families, status.discoveries);
  AppendRefusals(families, shards.workers);
  AppendDrain(families, shards.workers, status);
  AppendConfig(families, status);
  AppendLoops(families, shards.workers);
  AppendProcess(families, status, shards.workers.size(), build_);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace sluice::metrics
