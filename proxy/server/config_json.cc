#include "proxy/server/config_json.h"

#include <algorithm>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "proxy/config/values.h"

namespace sluice::server {
namespace {

using config::FormatDuration;
using config::FormatSize;
using Json = nlohmann::ordered_json;

std::string_view Name(config::Balance balance) {
  switch (balance) {
    case config::Balance::kRendezvous:
      return "rendezvous";
    case config::Balance::kLeastConnections:
      return "least_connections";
    case config::Balance::kRandomTwoChoices:
      return "random_two_choices";
    case config::Balance::kRoundRobin:
      return "round_robin";
  }
  return "rendezvous";
}

std::string_view Name(config::Panic panic) {
  return panic == config::Panic::kTryAll ? "try_all" : "refuse";
}

std::string_view Name(config::OnLimit on_limit) {
  return on_limit == config::OnLimit::kClose ? "close" : "pause";
}

std::string_view Name(config::OnSlow on_slow) {
  return on_slow == config::OnSlow::kClose ? "close" : "pause";
}

std::string_view Name(config::HealthType type) {
  switch (type) {
    case config::HealthType::kOff:
      return "off";
    case config::HealthType::kTcp:
      return "tcp";
    case config::HealthType::kHttp:
      return "http";
    case config::HealthType::kWebSocket:
      return "websocket";
  }
  return "off";
}

std::string_view Name(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::kDebug:
      return "debug";
    case config::LogLevel::kInfo:
      return "info";
    case config::LogLevel::kWarn:
      return "warn";
    case config::LogLevel::kError:
      return "error";
  }
  return "info";
}

std::string_view Name(config::AccessFormat format) {
  switch (format) {
    case config::AccessFormat::kJson:
      return "json";
    case config::AccessFormat::kText:
      return "text";
    case config::AccessFormat::kOff:
      return "off";
  }
  return "json";
}

std::string_view Name(config::ProxyProtocol version) {
  switch (version) {
    case config::ProxyProtocol::kOff:
      return "off";
    case config::ProxyProtocol::kV1:
      return "v1";
    case config::ProxyProtocol::kV2:
      return "v2";
  }
  return "off";
}

std::string_view Name(config::TlsVersion version) {
  return version == config::TlsVersion::k13 ? "1.3" : "1.2";
}

// As it is written in the file.
std::string RuleText(const config::AffinityRule& rule) {
  switch (rule.source) {
    case config::AffinitySource::kCookie:
      return "cookie:" + rule.name;
    case config::AffinitySource::kHeader:
      return "header:" + rule.name;
    case config::AffinitySource::kQuery:
      return "query:" + rule.name;
    case config::AffinitySource::kPath:
      return "path:" + std::to_string(rule.segment);
    case config::AffinitySource::kIp:
      break;
  }
  return "ip";
}

Json TlsJson(const config::ListenerTls& tls) {
  Json out{{"certificates", Json::array()}, {"min_version", Name(tls.min_version)}};
  for (const config::Certificate& pair : tls.certificates) {
    out["certificates"].push_back({{"chain", pair.chain}, {"key", pair.key}});
  }
  return out;
}

Json ListenerJson(const config::Listener& listener) {
  Json out{{"name", listener.name},
           {"address", config::HostPort{listener.host, listener.port, true}.Text()}};
  if (listener.is_tls()) {
    out["tls"] = TlsJson(listener.tls);
    out["tls"]["client_ca"] = listener.tls.client_ca;
  }
  out["proxy_protocol"] = listener.proxy_protocol;
  if (listener.redirect) {
    out["redirect"] = {{"port", listener.redirect->port}, {"status", listener.redirect->status}};
  }
  return out;
}

Json HeartbeatJson(const config::Heartbeat& heartbeat) {
  return {{"interval", FormatDuration(heartbeat.interval)},
          {"timeout", FormatDuration(heartbeat.timeout)}};
}

// The values of requests are for backends alone, and may let somebody in there: they are not told.
Json HeaderRulesJson(const config::HeaderRules& rules, bool tell_values) {
  Json added = Json::object();
  for (const config::HeaderRules::Field& field : rules.add) {
    added[field.name] = tell_values ? field.value : "(not told)";
  }
  return {{"add", std::move(added)}, {"remove", rules.remove}};
}

Json RouteJson(const config::Route& route) {
  Json affinity = Json::array();
  for (const config::AffinityRule& rule : route.affinity) {
    affinity.push_back(RuleText(rule));
  }
  Json pages = Json::object();
  for (const config::ErrorPage& page : route.error_pages) {
    pages[std::to_string(page.status)] = page.path;
  }
  Json limits{{"max_message_bytes", FormatSize(route.limits.max_message_bytes)},
              {"max_frame_bytes", FormatSize(route.limits.max_frame_bytes)},
              {"max_frames_per_message", route.limits.max_frames_per_message},
              {"max_connections", route.limits.max_connections},
              {"messages_per_second", route.limits.messages_per_second},
              {"bytes_per_second", FormatSize(route.limits.bytes_per_second)},
              {"control_frames_per_second", route.limits.control_frames_per_second},
              {"on_limit", Name(route.limits.on_limit)}};
  if (route.limits.max_connection_age) {
    limits["max_connection_age"] = FormatDuration(*route.limits.max_connection_age);
  }
  Json out{{"name", route.name},
           {"host", route.host},
           {"path", route.path},
           {"pool", route.pool},
           {"upgrades", route.upgrades},
           {"affinity", std::move(affinity)},
           {"affinity_cookie", route.affinity_cookie},
           {"origins", route.origins},
           {"require_origin", route.require_origin},
           {"limits", std::move(limits)},
           {"heartbeat",
            {{"client", HeartbeatJson(route.heartbeat.client)},
             {"backend", HeartbeatJson(route.heartbeat.backend)}}},
           {"idle_timeout", FormatDuration(route.idle_timeout)},
           {"on_slow", Name(route.on_slow)},
           {"slow_timeout", FormatDuration(route.slow_timeout)},
           {"refragment", FormatSize(route.refragment)},
           {"retries", route.retries},
           {"handshake_timeout", FormatDuration(route.handshake_timeout)},
           {"response_timeout", FormatDuration(route.response_timeout)},
           {"response_idle_timeout", FormatDuration(route.response_idle_timeout)},
           {"error_pages", std::move(pages)},
           {"request_headers", HeaderRulesJson(route.request_headers, false)},
           {"response_headers", HeaderRulesJson(route.response_headers, true)}};
  if (route.close_code != 0) {
    out["close_code"] = route.close_code;
  }
  if (route.hsts) {
    out["hsts"] = {{"max_age", FormatDuration(route.hsts->max_age)},
                   {"include_subdomains", route.hsts->include_subdomains},
                   {"preload", route.hsts->preload}};
  }
  if (route.auth) {
    // The query may hold a password, as the values of fields may.
    const std::string_view target = route.auth->target;
    const std::size_t path = std::min(target.find('?'), target.size());
    out["auth"] = {{"url", "http://" + route.auth->authority + std::string(target.substr(0, path)) +
                               (path < target.size() ? "?..." : "")},
                   {"forward", route.auth->forward},
                   {"copy", route.auth->copy},
                   {"timeout", FormatDuration(route.auth->timeout)},
                   {"on", route.auth->on == config::AuthOn::kAll ? "all" : "upgrades"}};
    out["auth_expires_header"] = route.auth_expires_header;
    out["auth_expires_code"] = route.auth_expires_code;
  }
  if (route.learn) {
    out["learn"] = {{"json", route.learn->json},
                    {"from", route.learn->from},
                    {"max_entries", route.learn->max_entries},
                    {"ttl", FormatDuration(route.learn->ttl)}};
  }
  return out;
}

Json PoolTlsJson(const config::PoolTls& tls) {
  Json out{{"ca", tls.ca},
           {"server_name", tls.server_name},
           {"verify", tls.verify},
           {"min_version", Name(tls.min_version)}};
  if (tls.has_certificate()) {
    out["certificate"] = {{"chain", tls.certificate.chain}, {"key", tls.certificate.key}};
  }
  return out;
}

std::string_view Name(config::DnsType type) {
  switch (type) {
    case config::DnsType::kA:
      return "A";
    case config::DnsType::kAaaa:
      return "AAAA";
    case config::DnsType::kSrv:
      return "SRV";
  }
  return "A";
}

Json DiscoveryJson(const config::Discovery& discover) {
  Json out;
  if (!discover.file.empty()) {
    out["file"] = discover.file;
  }
  if (discover.dns.empty()) {
    return out;
  }
  out["dns"] = discover.dns;
  out["type"] = Name(discover.type);
  if (discover.port != 0) {
    out["port"] = discover.port;
  }
  out["servers"] = discover.servers;
  out["timeout"] = FormatDuration(discover.timeout);
  out["min_ttl"] = FormatDuration(discover.min_ttl);
  out["max_ttl"] = FormatDuration(discover.max_ttl);
  return out;
}

Json PoolJson(const config::Pool& pool) {
  Json backends = Json::array();
  for (const config::Backend& backend : pool.backends) {
    backends.push_back({{"name", backend.name},
                        {"address", config::HostPort{backend.host, backend.port, true}.Text()},
                        {"weight", backend.weight},
                        {"group", backend.group},
                        {"max_connections", backend.max_connections}});
    if (!backend.server_name.empty()) {
      backends.back()["server_name"] = backend.server_name;
    }
  }
  const config::Health& health = pool.health;
  const config::Outlier& outlier = pool.outlier;
  Json out{{"balance", Name(pool.balance)},
           {"bounded_load", pool.bounded_load},
           {"slow_start", FormatDuration(pool.slow_start)},
           {"group_threshold", pool.group_threshold},
           {"panic", Name(pool.panic)},
           {"handshake_rate", pool.handshake_rate},
           {"handshake_burst", pool.handshake_burst},
           {"connect_timeout", FormatDuration(pool.connect_timeout)},
           {"proxy_protocol", Name(pool.proxy_protocol)},
           {"keep_alive",
            {{"max_idle", pool.keep_alive.max_idle},
             {"idle_timeout", FormatDuration(pool.keep_alive.idle_timeout)}}},
           {"health",
            {{"type", Name(health.type)},
             {"path", health.path},
             {"host", health.host},
             {"status", config::StatusRange{health.least_status, health.most_status}.Text()},
             {"interval", FormatDuration(health.interval)},
             {"timeout", FormatDuration(health.timeout)},
             {"rise", health.rise},
             {"fall", health.fall},
             {"ping", health.ping}}},
           {"on_down", pool.on_down == config::OnDown::kDrain ? "drain" : "keep"},
           {"outlier",
            {{"failures", outlier.failures},
             {"ejection_time", FormatDuration(outlier.ejection_time)},
             {"max_ejection_time", FormatDuration(outlier.max_ejection_time)},
             {"max_ejected", outlier.max_ejected}}}};
  if (pool.tls) {
    out["tls"] = PoolTlsJson(*pool.tls);
  }
  if (pool.discover) {
    out["discover"] = DiscoveryJson(*pool.discover);
  }
  out["backends"] = std::move(backends);
  return out;
}

Json AdminJson(const config::Admin& admin) {
  if (!admin.enabled) {
    return {{"address", "off"}};
  }
  Json out{{"address", config::HostPort{admin.host, admin.port, true}.Text()}};
  if (!admin.token_file.empty()) {
    out["token_file"] = admin.token_file;
  }
  if (admin.is_tls()) {
    out["tls"] = TlsJson(admin.tls);
  }
  return out;
}

}  // namespace

std::string ConfigJson(const config::Config& config) {
  Json out;
  out["server"] = {{"workers", config.server.workers},
                   {"header_timeout", FormatDuration(config.server.header_timeout)},
                   {"tls_timeout", FormatDuration(config.server.tls_timeout)},
                   {"keep_alive_timeout", FormatDuration(config.server.keep_alive_timeout)},
                   {"keep_alive_requests", config.server.keep_alive_requests},
                   {"close_timeout", FormatDuration(config.server.close_timeout)},
                   {"trusted_proxies", config.server.trusted_proxies},
                   {"takeover_socket", config.server.takeover_socket}};
  out["limits"] = {{"max_connections", config.limits.max_connections},
                   {"connections_per_ip", config.limits.connections_per_ip},
                   {"upgrades_per_ip", config.limits.upgrades_per_ip},
                   {"upgrades_per_ip_burst", config.limits.upgrades_per_ip_burst},
                   {"max_handshakes", config.limits.max_handshakes},
                   {"max_connection_age", FormatDuration(config.limits.max_connection_age)},
                   {"max_head_bytes", FormatSize(config.limits.max_head_bytes)},
                   {"max_head_fields", config.limits.max_head_fields},
                   {"max_request_line", FormatSize(config.limits.max_request_line)},
                   {"early_data", FormatSize(config.limits.early_data)},
                   {"out_buffer", FormatSize(config.limits.out_buffer)},
                   {"max_buffered", FormatSize(config.limits.max_buffered)}};
  out["drain"] = {{"window", FormatDuration(config.drain.window)},
                  {"grace", FormatDuration(config.drain.grace)},
                  {"ready_delay", FormatDuration(config.drain.ready_delay)},
                  {"message_grace", FormatDuration(config.drain.message_grace)},
                  {"rate", config.drain.rate},
                  {"event_retry", FormatDuration(config.drain.event_retry)},
                  {"close_code", config.drain.close_code},
                  {"reason", config.drain.reason}};
  out["admin"] = AdminJson(config.admin);
  out["log"] = {{"level", Name(config.log.level)},
                {"access", Name(config.log.access)},
                {"query", config.log.query},
                {"queue", config.log.queue}};
  for (const config::Listener& listener : config.listeners) {
    out["listener"].push_back(ListenerJson(listener));
  }
  for (const config::Route& route : config.routes) {
    out["route"].push_back(RouteJson(route));
  }
  for (const config::Pool& pool : config.pools) {
    out["pool"][pool.name] = PoolJson(pool);
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace sluice::server
