// Pools: their backends, TLS to them, checks, and where they are discovered. Part of Loader.
#include <utility>

#include "proxy/config/loader.h"
#include "proxy/config/values.h"

namespace sluice::config {

void Loader::ReadPools() {
  constexpr std::string_view kForm = "a table, written [pool.NAME]";
  const auto tables = root_.NamedTables("pool", "pool.*", kForm);
  if (root_.IsAbsentOrEmpty("pool")) {
    root_.AddMistake("pool", "there is no pool; write [pool.NAME] and its backends");
  }
  for (const auto& [name, in] : tables) {
    Pool out;
    out.name = name;
    if (const auto good = ParseName(name); !good) {
      report_.AddMistake(in.line(), in.path(), good.error().message);
    }
    in.ReadWord("balance", out.balance,
                {"rendezvous", "least_connections", "random_two_choices", "round_robin"},
                {Balance::kRendezvous, Balance::kLeastConnections, Balance::kRandomTwoChoices,
                 Balance::kRoundRobin});
    // Below 1 the fair share itself would be over the bound.
    in.ReadNumber("bounded_load", out.bounded_load, 1, 100, "off");
    in.ReadDuration("connect_timeout", out.connect_timeout, kShortest, kLongest);
    in.ReadDuration("slow_start", out.slow_start, Millis(0), kLongest);
    in.ReadWord("proxy_protocol", out.proxy_protocol, {"off", "v1", "v2"},
                {ProxyProtocol::kOff, ProxyProtocol::kV1, ProxyProtocol::kV2});
    in.ReadNumber("group_threshold", out.group_threshold, 0, 1);
    in.ReadWord("panic", out.panic, {"try_all", "refuse"}, {Panic::kTryAll, Panic::kRefuse});
    in.ReadNumber("handshake_rate", out.handshake_rate, 0.01, 1e6, "off");
    in.ReadCount("handshake_burst", out.handshake_burst, 0, 1'000'000);
    if (const auto tls = in.Table("tls", "pool.*.tls", "a table; {} for the defaults")) {
      ReadPoolTls(*tls, out.tls.emplace());
    }
    if (in.Has("discover")) {
      ReadDiscovery(in, out.discover.emplace());
    } else {
      ReadBackends(in, out);
    }
    if (const auto keep = in.Table("keep_alive", "pool.*.keep_alive", "a table")) {
      keep->ReadCount("max_idle", out.keep_alive.max_idle, 0, 10'000);
      keep->ReadDuration("idle_timeout", out.keep_alive.idle_timeout, kShortest, kLongest);
    }
    ReadHealth(in, out);
    ReadOutlier(in, out.outlier);
    config_.pools.push_back(std::move(out));
    pool_places_.push_back({in.line(), in.path()});
  }
}

void Loader::ReadBackends(const TableReader& in, Pool& out) {
  constexpr std::string_view kForm =
      "an array of tables, such as [{ name = \"a\", address = \"10.0.0.1:9000\" }]";
  const auto tables = in.Tables("backends", "pool.*.backends", kForm);
  if (in.IsAbsentOrEmpty("backends")) {
    in.AddMistake("backends", "must not be empty; allowed: " + std::string(kForm));
  }
  Claims names("backend name");
  for (const TableReader& entry : tables) {
    Backend backend;
    if (!entry.Has("address")) {
      entry.AddMistake("address", "is missing; allowed: HOST:PORT, such as \"10.0.0.1:9000\"");
    } else if (const auto text = entry.Text("address")) {
      auto parsed = ParseHostPort(text->text);
      if (!parsed) {
        entry.AddMistake("address", parsed.error().message);
      } else if (parsed->port == 0) {
        entry.AddMistake("address", Quoted(text->text) + ": 0 is not a port; allowed: 1 to 65535");
      } else {
        backend.name = text->text;
        backend.host = std::move(parsed->host);
        backend.port = parsed->port;
      }
    }
    entry.ReadParsed("name", backend.name, ParseName);
    if (!backend.name.empty()) {
      const std::string_view from = entry.Has("name") ? "name" : "address";
      names.Claim(report_, backend.name, entry.LineOf(from), entry.PathOf(from));
    }
    entry.ReadNumber("weight", backend.weight, 0.001, 1000);
    entry.ReadCount("group", backend.group, 0, 15);
    entry.ReadCount("max_connections", backend.max_connections, 0, 10'000'000);
    if (entry.ReadParsed("server_name", backend.server_name, ParseServerName) && !out.tls) {
      entry.AddMistake("server_name",
                       "is the name in a certificate, and this pool has no tls; set tls in the "
                       "pool, or leave this key out");
    }
    out.backends.push_back(std::move(backend));
  }
}

void Loader::ReadPoolTls(const TableReader& in, PoolTls& out) {
  out.ca_line = in.LineOf("ca");
  if (const auto ca = in.Text("ca"); ca && !ca->text.empty()) {
    ReadFilePath(in, "ca", kPemFile, out.ca);
  }
  if (const auto name = in.Text("server_name"); name && !name->text.empty()) {
    in.ReadParsed("server_name", out.server_name, ParseServerName);
  }
  out.certificate_line = in.LineOf("certificate");
  if (const auto pair = in.Table("certificate", "pool.*.tls.certificate",
                                 "a table, such as { chain = \"chain.pem\", key = \"key.pem\" }")) {
    ReadFilePath(*pair, "chain", kPemFile, out.certificate.chain);
    ReadFilePath(*pair, "key", kPemFile, out.certificate.key);
  }
  in.Read("verify", out.verify);
  if (!out.verify) {
    in.AddWarning("verify",
                  "certificates of these backends are not checked, so anybody on the way to them "
                  "can read and change what is said");
  }
  in.ReadWord("min_version", out.min_version, {"1.2", "1.3"}, {TlsVersion::k12, TlsVersion::k13});
}

void Loader::ReadHealth(const TableReader& pool, Pool& out) {
  Health& health = out.health;
  if (const auto in =
          pool.Table("health", "pool.*.health", "a table, such as { type = \"tcp\" }")) {
    if (!in->Has("type")) {
      in->AddMistake("type", "is missing; allowed: off, tcp, http, websocket");
    }
    in->ReadWord("type", health.type, {"off", "tcp", "http", "websocket"},
                 {HealthType::kOff, HealthType::kTcp, HealthType::kHttp, HealthType::kWebSocket});
    in->ReadParsed("path", health.path, ParseRequestPath);
    in->ReadParsed("host", health.host, ParseHostField);
    StatusRange status{health.least_status, health.most_status};
    if (in->IsInteger("status")) {
      if (in->ReadCount("status", status.least, kLeastStatus, kMostStatus)) {
        status.most = status.least;
      }
    } else {
      in->ReadParsed("status", status, ParseStatusRange);
    }
    health.least_status = status.least;
    health.most_status = status.most;
    // Ten checks a second of each backend are as many as anybody needs.
    in->ReadDuration("interval", health.interval, Millis(100), kLongest);
    in->ReadDuration("timeout", health.timeout, Millis(50), kLongest);
    in->ReadCount("rise", health.rise, 1, 100);
    in->ReadCount("fall", health.fall, 1, 100);
    in->Read("ping", health.ping);
  }
  pool.ReadWord("on_down", out.on_down, {"keep", "drain"}, {OnDown::kKeep, OnDown::kDrain});
  if (out.on_down == OnDown::kDrain && !health.is_on()) {
    pool.AddWarning("on_down", "without health checks no backend is ever found down");
  }
}

void Loader::ReadOutlier(const TableReader& pool, Outlier& out) {
  const auto in = pool.Table("outlier", "pool.*.outlier", "a table");
  if (!in) {
    return;
  }
  in->ReadCount("failures", out.failures, 0, 1000);
  in->ReadDuration("ejection_time", out.ejection_time, Millis(100), kLongest);
  in->ReadDuration("max_ejection_time", out.max_ejection_time, Millis(100), kDay);
  in->ReadNumber("max_ejected", out.max_ejected, 0.01, 1);
  if (out.ejection_time > out.max_ejection_time) {
    in->AddMistake(in->Has("ejection_time") ? "ejection_time" : "max_ejection_time",
                   "ejection_time (" + FormatDuration(out.ejection_time) +
                       ") is the first and shortest; allowed: at most max_ejection_time (" +
                       FormatDuration(out.max_ejection_time) + ")");
  }
}

void Loader::ReadDiscovery(const TableReader& pool, Discovery& out) {
  constexpr std::string_view kForm =
      "a table, such as { dns = \"chat.internal\", port = 9000 } or { file = \"backends.toml\" }";
  if (pool.Has("backends")) {
    pool.AddMistake("discover",
                    "the pool lists backends too; allowed: either backends or discover");
  }
  const auto in = pool.Table("discover", "pool.*.discover", kForm);
  if (!in) {
    return;
  }
  if (in->Has("dns") == in->Has("file")) {
    pool.AddMistake("discover", (in->Has("dns") ? "has both dns and file; allowed: "
                                                : "has neither dns nor file; allowed: ") +
                                    std::string(kForm));
    return;
  }
  if (in->Has("dns")) {
    ReadDnsDiscovery(*in, out);
    return;
  }
  // It need not be there yet: what is wrong with it then is told while the process runs.
  ReadPath(*in, "file", "a file that lists backends", out.file);
  for (const std::string_view key : {"port", "type", "servers", "timeout", "min_ttl", "max_ttl"}) {
    if (in->Has(key)) {
      in->AddMistake(key, "has no meaning for a file; allowed: only with dns");
    }
  }
}

void Loader::ReadDnsDiscovery(const TableReader& in, Discovery& out) {
  in.ReadParsed("dns", out.dns, ParseDnsName);
  in.ReadWord("type", out.type, {"A", "AAAA", "SRV"}, {DnsType::kA, DnsType::kAaaa, DnsType::kSrv});
  in.ReadCount("port", out.port, 1, 65535);
  if (out.type == DnsType::kSrv && in.Has("port")) {
    in.AddMistake("port", "is told by SRV records themselves; allowed: only with type A or AAAA");
  } else if (out.type != DnsType::kSrv && !in.Has("port")) {
    in.AddMistake("port", "is missing; allowed: the port of all backends, 1 to 65535");
  }
  for (const TextItem& item : in.Texts("servers")) {
    if (const auto server = ParseDnsServer(item.text)) {
      out.servers.push_back(server->Text());
    } else {
      report_.AddMistake(item.line, item.key, server.error().message);
    }
  }
  in.ReadDuration("timeout", out.timeout, Millis(100), Millis(60'000));
  in.ReadDuration("min_ttl", out.min_ttl, Millis(100), kDay);
  in.ReadDuration("max_ttl", out.max_ttl, Millis(100), kDay);
  if (out.min_ttl > out.max_ttl) {
    in.AddMistake(in.Has("min_ttl") ? "min_ttl" : "max_ttl",
                  "min_ttl (" + FormatDuration(out.min_ttl) + ") is above max_ttl (" +
                      FormatDuration(out.max_ttl) + "); allowed: at most max_ttl");
  }
}

}  // namespace sluice::config
