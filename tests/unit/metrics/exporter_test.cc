// Proves the text that Prometheus scrapes: exact lines, sums over workers, cumulative buckets, and
// which series are there before anything has happened.
#include "proxy/metrics/exporter.h"

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice::metrics {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// The lines of one family, HELP and TYPE included, in order.
std::vector<std::string> FamilyLines(const std::string& text, const std::string& family) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("# HELP ")) {
      inside = line.starts_with("# HELP " + family + " ");
    }
    if (inside) {
      lines.push_back(line);
    }
  }
  return lines;
}

std::vector<std::string> Samples(const Exporter& exporter, const std::string& family,
                                 const ProcessStatus& status = {}) {
  std::vector<std::string> lines = FamilyLines(exporter.Text(status), family);
  std::erase_if(lines, [](const std::string& line) { return line.starts_with('#'); });
  return lines;
}

BackendStatus Status(std::string pool, std::string backend, std::int64_t open, double weight) {
  BackendStatus status;
  status.pool = std::move(pool);
  status.backend = std::move(backend);
  status.open = open;
  status.weight = weight;
  return status;
}

class ExporterTest : public ::testing::Test {
 protected:
  Exporter exporter_{2, {"0.1.0", "abc1234", "3.0.17", "2.1.12-stable"}};
};

TEST_F(ExporterTest, WritesAFamilyAsPrometheusReadsIt) {
  exporter_.Listener(0, "public", true).accepts.Add(3);
  EXPECT_THAT(FamilyLines(exporter_.Text({}), "sluice_accepts_total"),
              ElementsAre("# HELP sluice_accepts_total Client connections accepted, by listener.",
                          "# TYPE sluice_accepts_total counter",
                          "sluice_accepts_total{listener=\"public\"} 3"));
  EXPECT_THAT(Samples(exporter_, "sluice_build_info"),
              ElementsAre("sluice_build_info{version=\"0.1.0\",revision=\"abc1234\","
                          "openssl=\"3.0.17\",libevent=\"2.1.12-stable\"} 1"));
}

TEST_F(ExporterTest, GivesTheSameBlockForTheSameLabels) {
  RouteBlock* const route = &exporter_.Route(0, "chat");
  BackendBlock* const backend = &exporter_.Backend(1, "p", "b");
  Gauge* const sessions = &exporter_.SessionsOpen(0, "chat", "p", "b");
  for (int i = 0; i < 100; ++i) {
    (void)exporter_.Route(0, "other-" + std::to_string(i));
    (void)exporter_.Backend(1, "p", "b-" + std::to_string(i));
  }
  EXPECT_EQ(&exporter_.Route(0, "chat"), route);
  EXPECT_NE(&exporter_.Route(1, "chat"), route);
  EXPECT_EQ(&exporter_.Backend(1, "p", "b"), backend);
  EXPECT_NE(&exporter_.Backend(1, "q", "b"), backend);
  EXPECT_EQ(&exporter_.SessionsOpen(0, "chat", "p", "b"), sessions);
  EXPECT_NE(&exporter_.SessionsOpen(1, "chat", "p", "b"), sessions);
  EXPECT_EQ(&exporter_.Listener(0, "l", false), &exporter_.Listener(0, "l", false));
  EXPECT_EQ(&exporter_.Worker(1), &exporter_.Worker(1));
  EXPECT_NE(&exporter_.Worker(0), &exporter_.Worker(1));
}

TEST_F(ExporterTest, SumsOverWorkers) {
  for (std::size_t worker = 0; worker < 2; ++worker) {
    RouteBlock& route = exporter_.Route(worker, "chat");
    route.messages[Index(Side::kClient)][MessageKind::kText].Add(10 + worker);
    route.bytes[Index(Side::kBackend)].Add(1000);
    exporter_.Worker(worker).out_buffer_bytes.Set(500);
    exporter_.SessionsOpen(worker, "chat", "p", "b").Add(2);
  }
  exporter_.SessionsOpen(1, "chat", "p", "c").Add(1);  // a pair that worker 0 does not know
  const std::string text = exporter_.Text({});
  EXPECT_THAT(
      text,
      HasSubstr("sluice_messages_total{route=\"chat\",from=\"client\",opcode=\"text\"} 21\n"));
  EXPECT_THAT(text, HasSubstr("sluice_bytes_total{route=\"chat\",from=\"client\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_bytes_total{route=\"chat\",from=\"backend\"} 2000\n"));
  EXPECT_THAT(text, HasSubstr("sluice_out_buffer_bytes 1000\n"));
  EXPECT_THAT(
      FamilyLines(text, "sluice_sessions_open"),
      ElementsAre(
          "# HELP sluice_sessions_open WebSocket sessions relayed now, by route and backend.",
          "# TYPE sluice_sessions_open gauge",
          "sluice_sessions_open{route=\"chat\",pool=\"p\",backend=\"b\"} 4",
          "sluice_sessions_open{route=\"chat\",pool=\"p\",backend=\"c\"} 1"));
}

TEST_F(ExporterTest, TellsEventStreamsFromRequests) {
  for (std::size_t worker = 0; worker < 2; ++worker) {
    RouteBlock& route = exporter_.Route(worker, "r");
    route.http_requests_in_flight.Add(3);
    route.http_bytes[Index(Side::kBackend)].Add(100);
    route.event_streams_open.Add(2);
    route.event_stream_seconds.Observe(4000);
  }
  const std::string text = exporter_.Text({});
  EXPECT_THAT(text, HasSubstr("sluice_http_requests_in_flight{route=\"r\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("sluice_http_bytes_total{route=\"r\",from=\"client\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_http_bytes_total{route=\"r\",from=\"backend\"} 200\n"));
  EXPECT_THAT(text, HasSubstr("sluice_event_streams_open{route=\"r\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("sluice_event_stream_seconds_bucket{route=\"r\",le=\"3600\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_event_stream_seconds_bucket{route=\"r\",le=\"7200\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("sluice_http_request_seconds_count{route=\"r\"} 0\n"));
}

TEST_F(ExporterTest, KeepsLargeCountsExact) {
  exporter_.Route(0, "chat").bytes[0].Add(9'007'199'254'740'991);
  EXPECT_THAT(Samples(exporter_, "sluice_bytes_total"),
              ElementsAre("sluice_bytes_total{route=\"chat\",from=\"client\"} 9007199254740991",
                          "sluice_bytes_total{route=\"chat\",from=\"backend\"} 0"));
}

TEST_F(ExporterTest, WritesCumulativeBuckets) {
  exporter_.Route(0, "r").session_seconds.Observe(0.5);
  exporter_.Route(0, "r").session_seconds.Observe(20);
  exporter_.Route(1, "r").session_seconds.Observe(15);
  exporter_.Route(1, "r").session_seconds.Observe(100'000);
  const std::string series = "sluice_session_seconds_";
  EXPECT_THAT(
      Samples(exporter_, "sluice_session_seconds"),
      ElementsAre(
          series + "count{route=\"r\"} 4", series + "sum{route=\"r\"} 100035.5",
          series + "bucket{route=\"r\",le=\"1\"} 1", series + "bucket{route=\"r\",le=\"5\"} 1",
          series + "bucket{route=\"r\",le=\"15\"} 2", series + "bucket{route=\"r\",le=\"60\"} 3",
          series + "bucket{route=\"r\",le=\"300\"} 3", series + "bucket{route=\"r\",le=\"900\"} 3",
          series + "bucket{route=\"r\",le=\"1800\"} 3",
          series + "bucket{route=\"r\",le=\"3600\"} 3",
          series + "bucket{route=\"r\",le=\"7200\"} 3",
          series + "bucket{route=\"r\",le=\"14400\"} 3",
          series + "bucket{route=\"r\",le=\"43200\"} 3",
          series + "bucket{route=\"r\",le=\"86400\"} 3",
          series + "bucket{route=\"r\",le=\"+Inf\"} 4"));
}

TEST_F(ExporterTest, WritesMessageSizes) {
  exporter_.Route(0, "r").message_bytes[Index(Side::kClient)].Observe(64);
  exporter_.Route(1, "r").message_bytes[Index(Side::kClient)].Observe(65);
  const std::string text = exporter_.Text({});
  const std::string labels = "{route=\"r\",from=\"client\",le=";
  EXPECT_THAT(text, HasSubstr("sluice_message_bytes_bucket" + labels + "\"16\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_message_bytes_bucket" + labels + "\"64\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sluice_message_bytes_bucket" + labels + "\"256\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("sluice_message_bytes_sum{route=\"r\",from=\"client\"} 129\n"));
}

TEST_F(ExporterTest, WritesWhatCameOfAskingAuthServers) {
  RouteBlock& route = exporter_.Route(0, "r");
  EXPECT_EQ(Samples(exporter_, "sluice_auth_checks_total").size(), 5U);
  route.auth_checks[AuthResult::kDenied].Add();
  exporter_.Route(1, "r").auth_checks[AuthResult::kDenied].Add(2);
  route.auth_seconds.Observe(0.25);
  const std::string text = exporter_.Text({});
  EXPECT_THAT(text, HasSubstr("sluice_auth_checks_total{route=\"r\",result=\"allowed\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_auth_checks_total{route=\"r\",result=\"denied\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("sluice_auth_seconds_sum{route=\"r\"} 0.25\n"));
}

TEST_F(ExporterTest, BoundsReadAsTheyAreWritten) {
  (void)exporter_.Route(0, "r");
  EXPECT_THAT(exporter_.Text({}),
              HasSubstr("sluice_upgrade_seconds_bucket{route=\"r\",le=\"0.0005\"} 0\n"));
  EXPECT_THAT(exporter_.Text({}), HasSubstr("sluice_relay_seconds_bucket{le=\"0.1\"} 0\n"));
}

TEST_F(ExporterTest, ShowsTheBaseCloseCodesAndThoseSeen) {
  RouteBlock& route = exporter_.Route(0, "r");
  EXPECT_EQ(Samples(exporter_, "sluice_closes_total").size(), 4U * 3U);
  EXPECT_THAT(exporter_.Text({}),
              HasSubstr("sluice_closes_total{route=\"r\",code=\"1012\",by=\"sluice\"} 0\n"));
  EXPECT_THAT(exporter_.Text({}),
              HasSubstr("sluice_closes_total{route=\"r\",code=\"none\",by=\"client\"} 0\n"));
  EXPECT_THAT(exporter_.Text({}), Not(HasSubstr("code=\"4xxx\"")));

  route.closes[CloseSlot(4321)][ClosedBy::kBackend].Add();
  EXPECT_EQ(Samples(exporter_, "sluice_closes_total").size(), 4U * 3U + 1U);
  EXPECT_THAT(exporter_.Text({}),
              HasSubstr("sluice_closes_total{route=\"r\",code=\"4xxx\",by=\"backend\"} 1\n"));
}

TEST_F(ExporterTest, CountsTlsHandshakesOfTlsListenersOnly) {
  (void)exporter_.Listener(0, "plain", false);
  ListenerBlock& tls = exporter_.Listener(0, "secure", true);
  tls.tls_full[1].Add(5);
  tls.tls_resumed[1].Add(2);
  tls.tls_failed[TlsResult::kTimeout].Add();
  const std::string head = "sluice_tls_handshakes_total{listener=\"secure\",result=";
  EXPECT_THAT(Samples(exporter_, "sluice_tls_handshakes_total"),
              ElementsAre(head + "\"ok\",version=\"1.2\",resumed=\"false\"} 0",
                          head + "\"ok\",version=\"1.2\",resumed=\"true\"} 0",
                          head + "\"ok\",version=\"1.3\",resumed=\"false\"} 5",
                          head + "\"ok\",version=\"1.3\",resumed=\"true\"} 2",
                          head + "\"failed\",version=\"none\",resumed=\"false\"} 0",
                          head + "\"timeout\",version=\"none\",resumed=\"false\"} 1"));
}

TEST_F(ExporterTest, CountsProxyHeadersOfListenersThatWantThem) {
  (void)exporter_.Listener(0, "plain", false);
  ListenerBlock& behind = exporter_.Listener(0, "behind", false, true);
  behind.proxy_headers[ProxyHeader::kV2].Add(3);
  exporter_.Listener(1, "behind", false, true).proxy_headers[ProxyHeader::kV2].Add(4);
  behind.proxy_headers[ProxyHeader::kUntrusted].Add();
  const auto sample = [](const std::string& result, int value) {
    return "sluice_proxy_headers_total{listener=\"behind\",result=\"" + result + "\"} " +
           std::to_string(value);
  };
  const auto expected = ElementsAre(sample("v1", 0), sample("v2", 7), sample("unknown", 0),
                                    sample("local", 0), sample("bad", 0), sample("ended", 0),
                                    sample("timeout", 0), sample("untrusted", 1));
  EXPECT_THAT(Samples(exporter_, "sluice_proxy_headers_total"), expected);
  (void)exporter_.Listener(0, "behind", false, false);  // a reload has switched it off
  EXPECT_THAT(Samples(exporter_, "sluice_proxy_headers_total"), expected);
}

TEST_F(ExporterTest, CountsConnectionsOfBothSides) {
  exporter_.Listener(0, "plain", false).connections_open.Add(4);
  exporter_.Listener(1, "secure", true).connections_open.Add(6);
  ProcessStatus status;
  status.backends = {Status("p", "a", 3, 1), Status("p", "b", 2, 1), Status("q", "a", 7, 1)};
  status.backends[2].tls = true;
  const std::string name = "sluice_connections_open";
  EXPECT_THAT(Samples(exporter_, name, status),
              ElementsAre(name + "{side=\"client\",tls=\"false\",listener=\"plain\"} 4",
                          name + "{side=\"client\",tls=\"true\",listener=\"secure\"} 6",
                          name + "{side=\"backend\",tls=\"false\",listener=\"\"} 5",
                          name + "{side=\"backend\",tls=\"true\",listener=\"\"} 7"));
}

TEST_F(ExporterTest, SumsTlsHandshakesWithBackends) {
  exporter_.Backend(0, "p", "a").tls_handshakes[BackendTlsResult::kOk].Add(2);
  exporter_.Backend(1, "p", "a").tls_handshakes[BackendTlsResult::kResumed].Add(3);
  exporter_.Backend(1, "p", "a").failures[BackendFailure::kTls].Add(4);
  const std::string name = "sluice_backend_tls_handshakes_total{pool=\"p\",backend=\"a\",result=";
  EXPECT_THAT(Samples(exporter_, "sluice_backend_tls_handshakes_total"),
              ElementsAre(name + "\"ok\"} 2", name + "\"resumed\"} 3", name + "\"failed\"} 0"));
  EXPECT_THAT(
      exporter_.Text({}),
      HasSubstr("sluice_backend_failures_total{pool=\"p\",backend=\"a\",reason=\"tls\"} 4\n"));
}

TEST_F(ExporterTest, DescribesBackends) {
  ProcessStatus status;
  status.backends = {Status("p", "a", 3, 1), Status("p", "b", 0, 2.5)};
  status.backends[1].up = false;
  status.backends[1].draining = true;
  const std::string text = exporter_.Text(status);
  EXPECT_THAT(text, HasSubstr("sluice_backend_up{pool=\"p\",backend=\"a\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sluice_backend_up{pool=\"p\",backend=\"b\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_backend_draining{pool=\"p\",backend=\"b\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sluice_backend_weight{pool=\"p\",backend=\"b\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("sluice_backend_connections_open{pool=\"p\",backend=\"a\"} 3\n"));
}

TEST_F(ExporterTest, TellsOfTheHealthOfBackends) {
  ProcessStatus status;
  status.backends = {Status("p", "a", 3, 1), Status("p", "b", 0, 1)};
  status.backends[1].ejected = true;
  status.backends[1].checks_ok = 7;
  status.backends[1].checks_failed = 2;
  status.backends[1].ejections = 4;
  EXPECT_THAT(Samples(exporter_, "sluice_backend_ejected", status),
              ElementsAre("sluice_backend_ejected{pool=\"p\",backend=\"a\"} 0",
                          "sluice_backend_ejected{pool=\"p\",backend=\"b\"} 1"));
  const std::string checks = "sluice_health_checks_total{pool=\"p\",backend=";
  EXPECT_THAT(
      Samples(exporter_, "sluice_health_checks_total", status),
      ElementsAre(checks + "\"a\",result=\"ok\"} 0", checks + "\"a\",result=\"failed\"} 0",
                  checks + "\"b\",result=\"ok\"} 7", checks + "\"b\",result=\"failed\"} 2"));
  EXPECT_THAT(Samples(exporter_, "sluice_backend_ejections_total", status),
              ElementsAre("sluice_backend_ejections_total{pool=\"p\",backend=\"a\"} 0",
                          "sluice_backend_ejections_total{pool=\"p\",backend=\"b\"} 4"));
}

TEST_F(ExporterTest, SumsPicksOverThePool) {
  exporter_.Backend(0, "p", "a").picks[PickHow::kHome].Add(3);
  exporter_.Backend(1, "p", "b").picks[PickHow::kHome].Add(4);
  exporter_.Backend(1, "q", "b").picks[PickHow::kFallback].Add(9);
  exporter_.Backend(0, "p", "b").picks[PickHow::kPanic].Add(5);
  EXPECT_THAT(Samples(exporter_, "sluice_picks_total"),
              ElementsAre("sluice_picks_total{pool=\"p\",how=\"home\"} 7",
                          "sluice_picks_total{pool=\"p\",how=\"overflow\"} 0",
                          "sluice_picks_total{pool=\"p\",how=\"fallback\"} 0",
                          "sluice_picks_total{pool=\"p\",how=\"panic\"} 5",
                          "sluice_picks_total{pool=\"q\",how=\"home\"} 0",
                          "sluice_picks_total{pool=\"q\",how=\"overflow\"} 0",
                          "sluice_picks_total{pool=\"q\",how=\"fallback\"} 9",
                          "sluice_picks_total{pool=\"q\",how=\"panic\"} 0"));
}

TEST_F(ExporterTest, LoadSkewComparesWithTheShareByWeight) {
  struct Case {
    const char* name;
    std::vector<BackendStatus> backends;
    std::string want;
  };
  std::vector<Case> cases;
  cases.push_back({"idle", {Status("p", "a", 0, 1), Status("p", "b", 0, 1)}, "1"});
  cases.push_back({"even", {Status("p", "a", 5, 1), Status("p", "b", 5, 1)}, "1"});
  cases.push_back({"by weight", {Status("p", "a", 5, 1), Status("p", "b", 10, 2)}, "1"});
  cases.push_back({"one holds all", {Status("p", "a", 8, 1), Status("p", "b", 0, 1)}, "2"});
  cases.push_back({"light one too full", {Status("p", "a", 6, 1), Status("p", "b", 6, 3)}, "2"});
  cases.push_back({"down is left out", {Status("p", "a", 6, 1), Status("p", "b", 0, 3)}, "1"});
  cases.back().backends[1].up = false;
  cases.push_back({"draining is left out", {Status("p", "a", 6, 1), Status("p", "b", 90, 1)}, "1"});
  cases.back().backends[1].draining = true;
  for (const Case& c : cases) {
    ProcessStatus status;
    status.backends = c.backends;
    EXPECT_THAT(Samples(exporter_, "sluice_load_skew_ratio", status),
                ElementsAre("sluice_load_skew_ratio{pool=\"p\"} " + c.want))
        << c.name;
  }
}

TEST_F(ExporterTest, TellsWhatWasLearned) {
  exporter_.Route(0, "chat").learned.Add(3);
  exporter_.Route(1, "chat").learned.Add(4);
  exporter_.Route(1, "chat").learned_evicted.Add(2);
  exporter_.Route(0, "chat").unreadable[Unreadable::kEncoded].Add(5);
  exporter_.Route(1, "chat").learned_picks[LearnedPick::kFallback].Add(6);
  static_cast<void>(exporter_.Route(0, "other"));
  EXPECT_THAT(Samples(exporter_, "sluice_affinity_learned_total"),
              ElementsAre("sluice_affinity_learned_total{route=\"chat\"} 7",
                          "sluice_affinity_learned_total{route=\"other\"} 0"));
  EXPECT_THAT(Samples(exporter_, "sluice_affinity_learned_evicted_total"),
              ElementsAre("sluice_affinity_learned_evicted_total{route=\"chat\"} 2",
                          "sluice_affinity_learned_evicted_total{route=\"other\"} 0"));
  EXPECT_THAT(
      Samples(exporter_, "sluice_affinity_unreadable_total"),
      ElementsAre("sluice_affinity_unreadable_total{route=\"chat\",reason=\"encoded\"} 5",
                  "sluice_affinity_unreadable_total{route=\"chat\",reason=\"no_token\"} 0",
                  "sluice_affinity_unreadable_total{route=\"other\",reason=\"encoded\"} 0",
                  "sluice_affinity_unreadable_total{route=\"other\",reason=\"no_token\"} 0"));
  EXPECT_THAT(Samples(exporter_, "sluice_affinity_learned_picks_total"),
              ElementsAre("sluice_affinity_learned_picks_total{route=\"chat\",how=\"home\"} 0",
                          "sluice_affinity_learned_picks_total{route=\"chat\",how=\"fallback\"} 6",
                          "sluice_affinity_learned_picks_total{route=\"chat\",how=\"ended\"} 0",
                          "sluice_affinity_learned_picks_total{route=\"other\",how=\"home\"} 0",
                          "sluice_affinity_learned_picks_total{route=\"other\",how=\"fallback\"} 0",
                          "sluice_affinity_learned_picks_total{route=\"other\",how=\"ended\"} 0"));
  ProcessStatus status;
  status.learned = {{"chat", 12}};
  EXPECT_THAT(
      FamilyLines(exporter_.Text(status), "sluice_affinity_learned_entries"),
      ElementsAre("# HELP sluice_affinity_learned_entries Learned tokens that are remembered.",
                  "# TYPE sluice_affinity_learned_entries gauge",
                  "sluice_affinity_learned_entries{route=\"chat\"} 12"));
}

TEST_F(ExporterTest, SumsReasonsByWord) {
  static constexpr std::string_view kWords[] = {"bare_lf", "bad_host"};
  static constexpr std::string_view kFewer[] = {"bad_host"};
  exporter_.Worker(0).http_parse_errors.Register(kWords);
  exporter_.Worker(1).http_parse_errors.Register(kFewer);
  exporter_.Worker(0).http_parse_errors.Add("bad_host");
  exporter_.Worker(1).http_parse_errors.Add("bad_host");
  exporter_.Worker(1).protocol_errors[Index(Side::kBackend)].Add("masked_backend_frame");
  EXPECT_THAT(Samples(exporter_, "sluice_http_parse_errors_total"),
              ElementsAre("sluice_http_parse_errors_total{reason=\"bad_host\"} 2",
                          "sluice_http_parse_errors_total{reason=\"bare_lf\"} 0",
                          "sluice_http_parse_errors_total{reason=\"other\"} 0"));
  EXPECT_THAT(Samples(exporter_, "sluice_protocol_errors_total"),
              ElementsAre("sluice_protocol_errors_total{side=\"client\",reason=\"other\"} 0",
                          "sluice_protocol_errors_total{side=\"backend\",reason=\"other\"} 1"));
}

TEST_F(ExporterTest, TellsOfDrainConfigAndCertificates) {
  exporter_.Worker(0).drain_sessions_remaining.Set(7);
  exporter_.Worker(1).drain_closed[0].Add(3);
  exporter_.Worker(1).drain_closed[1].Add(1);
  ProcessStatus status;
  status.draining = true;
  status.drain_seconds = 1.5;
  status.config_ok = false;
  status.config_loaded_at = 1'700'000'000;
  status.reloads_failed = 2;
  status.log_dropped = 9;
  status.max_connections = 4096;
  status.certificates = {{"secure", "chat.example.com", 1'800'000'000}};
  const std::string text = exporter_.Text(status);
  for (const char* line :
       {"sluice_drain_active{what=\"process\"} 1\n", "sluice_drain_sessions_remaining 7\n",
        "sluice_drain_closed_total{how=\"clean\"} 3\n",
        "sluice_drain_closed_total{how=\"forced\"} 1\n", "sluice_drain_seconds 1.5\n",
        "sluice_reloads_total{result=\"success\"} 0\n",
        "sluice_reloads_total{result=\"failure\"} 2\n", "sluice_config_last_reload_successful 0\n",
        "sluice_config_last_reload_success_timestamp_seconds 1700000000\n",
        "sluice_log_dropped_total 9\n", "sluice_max_connections 4096\n", "sluice_workers 2\n",
        "sluice_tls_certificate_expiry_timestamp_seconds{listener=\"secure\","
        "name=\"chat.example.com\"} 1800000000\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST_F(ExporterTest, ShowsLoopsByWorker) {
  exporter_.Worker(1).loop_busy_micros.Add(2'500'000);
  exporter_.Worker(0).loop_lag_seconds.Observe(0.003);
  const std::string text = exporter_.Text({});
  EXPECT_THAT(text, HasSubstr("sluice_loop_busy_seconds_total{worker=\"0\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_loop_busy_seconds_total{worker=\"1\"} 2.5\n"));
  EXPECT_THAT(text, HasSubstr("sluice_loop_lag_seconds_bucket{worker=\"0\",le=\"0.0025\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("sluice_loop_lag_seconds_bucket{worker=\"0\",le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("sluice_loop_lag_seconds_count{worker=\"1\"} 0\n"));
}

TEST_F(ExporterTest, EscapesLabelValues) {
  (void)exporter_.Listener(0, "a\"b\\c", false);
  EXPECT_THAT(exporter_.Text({}), HasSubstr("sluice_accepts_total{listener=\"a\\\"b\\\\c\"} 0\n"));
}

TEST_F(ExporterTest, KnowsItsProcess) {
  std::map<std::string, double> values;
  std::istringstream in(exporter_.Text({}));
  for (std::string line; std::getline(in, line);) {
    const std::size_t space = line.rfind(' ');
    if (!line.starts_with('#') && line.find('{') == std::string::npos) {
      values[line.substr(0, space)] = std::stod(line.substr(space + 1));
    }
  }
  EXPECT_GE(values.at("process_open_fds"), 3);
  EXPECT_EQ(values.at("process_open_fds"), values.at("sluice_open_fds"));
  EXPECT_GT(values.at("process_max_fds"), values.at("process_open_fds"));
  EXPECT_GT(values.at("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(values.at("process_virtual_memory_bytes"), values.at("process_resident_memory_bytes"));
  EXPECT_GE(values.at("process_threads"), 1);
  EXPECT_GT(values.at("process_start_time_seconds"), 1.6e9);
}

TEST_F(ExporterTest, EveryFamilyIsWrittenOnceWithHelp) {
  std::set<std::string> seen;
  std::istringstream in(exporter_.Text({}));
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("# HELP ")) {
      const std::string rest = line.substr(7);
      const std::size_t space = rest.find(' ');
      ASSERT_NE(space, std::string::npos) << line;
      EXPECT_TRUE(seen.insert(rest.substr(0, space)).second) << line;
      EXPECT_EQ(rest.back(), '.') << line;
    }
  }
  EXPECT_GT(seen.size(), 50U);
}

// Run under TSan this is the proof that a scrape and the workers need no lock between them.
TEST_F(ExporterTest, CanBeReadWhileWorkersCount) {
  RouteBlock& route = exporter_.Route(0, "r");
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    while (!stop.load()) {
      route.bytes[0].Add(2);
      route.upgrade_seconds.Observe(0.001);
    }
  });
  for (int i = 0; i < 20; ++i) {
    const std::vector<std::string> lines = Samples(exporter_, "sluice_upgrade_seconds");
    const std::string count = lines.front().substr(lines.front().rfind(' ') + 1);
    const std::string infinity = lines.back().substr(lines.back().rfind(' ') + 1);
    EXPECT_EQ(count, infinity);  // a scrape never shows a count that its buckets contradict
  }
  stop = true;
  worker.join();
}

TEST_F(ExporterTest, TellsHowDiscoveryGoes) {
  ProcessStatus status;
  status.discoveries = {{"p", 3, true, 1700000000, 2, 5, 1}};
  EXPECT_THAT(Samples(exporter_, "sluice_discovery_updates_total", status),
              ElementsAre("sluice_discovery_updates_total{pool=\"p\",result=\"changed\"} 2",
                          "sluice_discovery_updates_total{pool=\"p\",result=\"unchanged\"} 5",
                          "sluice_discovery_updates_total{pool=\"p\",result=\"failed\"} 1"));
  EXPECT_THAT(Samples(exporter_, "sluice_discovery_up", status),
              ElementsAre("sluice_discovery_up{pool=\"p\"} 1"));
  EXPECT_THAT(Samples(exporter_, "sluice_discovery_backends", status),
              ElementsAre("sluice_discovery_backends{pool=\"p\"} 3"));
  EXPECT_THAT(
      Samples(exporter_, "sluice_discovery_last_success_timestamp_seconds", status),
      ElementsAre("sluice_discovery_last_success_timestamp_seconds{pool=\"p\"} 1700000000"));
}

TEST_F(ExporterTest, ForgetsTheSeriesOfABackendButNotWhatItsPoolHasCounted) {
  exporter_.Backend(0, "p", "gone").picks[PickHow::kHome].Add(3);
  exporter_.Backend(1, "p", "stays").picks[PickHow::kHome].Add(2);
  exporter_.SessionsOpen(0, "chat", "p", "gone").Add(1);
  exporter_.SessionsOpen(1, "chat", "p", "stays").Add(1);
  exporter_.ForgetBackend("p", "gone");
  exporter_.ForgetBackend("p", "unheard-of");
  EXPECT_THAT(Samples(exporter_, "sluice_backend_retries_total"),
              ElementsAre("sluice_backend_retries_total{pool=\"p\",backend=\"stays\"} 0"));
  EXPECT_THAT(Samples(exporter_, "sluice_sessions_open"),
              ElementsAre("sluice_sessions_open{route=\"chat\",pool=\"p\",backend=\"stays\"} 1"));
  EXPECT_THAT(exporter_.Text({}), HasSubstr("sluice_picks_total{pool=\"p\",how=\"home\"} 5\n"));
  EXPECT_THAT(exporter_.Text({}), Not(HasSubstr("gone")));
}

// A session may write to what is not told any more; AddressSanitizer would see it gone.
TEST_F(ExporterTest, WhoeverKeepsABackendMayCountOnAfterItIsForgotten) {
  BackendBlock& block = exporter_.Backend(0, "p", "b");
  Gauge& gauge = exporter_.SessionsOpen(0, "chat", "p", "b");
  std::shared_ptr<const void> kept = exporter_.KeepBackend("p", "b");
  exporter_.ForgetBackend("p", "b");
  block.retries.Add();
  gauge.Add(-1);
  EXPECT_EQ(block.retries.value(), 1U);
  EXPECT_EQ(exporter_.OpenSessions(), 0U);
  kept.reset();
  EXPECT_EQ(exporter_.Backend(0, "p", "b").retries.value(), 0U);
}

}  // namespace
}  // namespace sluice::metrics
