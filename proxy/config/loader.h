// How a document becomes a Config: what each key means. Load() runs once over it; the parts are in
// load.cc (what is of the whole process, and what several sections have to agree on), and in
// load_listener.cc, load_pool.cc and load_route.cc. Startup and control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/config/config.h"
#include "proxy/config/table_reader.h"
#include "proxy/config/values.h"

namespace sluice::config {

// What several sections allow.

// A deadline below 10 ms is shorter than one turn of a busy loop; above an hour it is none.
inline constexpr Millis kShortest{10};
inline constexpr Millis kLongest = std::chrono::hours(1);
// What may rightly take long: an idle keep-alive, a long poll, a drain over a night.
inline constexpr Millis kDay = std::chrono::hours(24);
// A connection that may live longer than a month needs no limit.
inline constexpr Millis kMonth = std::chrono::hours(720);

inline constexpr std::uint64_t kKiB = 1ULL << 10;
inline constexpr std::uint64_t kMiB = 1ULL << 20;
inline constexpr std::uint64_t kGiB = 1ULL << 30;
inline constexpr std::uint64_t kMostConnections = 10'000'000;  // far above any fd limit

// Of anything a second. Once in 100 s is still a rate, less often a mistyped one.
inline constexpr double kLeastRate = 0.01;
inline constexpr double kMostRate = 1e9;

inline constexpr std::string_view kPemFile = "a PEM file";

// The whole file, or one sentence. `noun` is what a file of more than `most` bytes cannot be.
[[nodiscard]] Result<std::string> ReadWhole(const std::string& path, std::uint64_t most,
                                            std::string_view noun);

// Names that must differ, and who took each.
class Claims {
 public:
  explicit Claims(std::string_view noun) : noun_(noun) {}

  // Reports when `name` is taken, and returns whether it was free. `key` is where this one got it
  // from.
  bool Claim(Report& report, const std::string& name, std::size_t line, const std::string& key) {
    const auto [entry, fresh] = taken_.try_emplace(name, key, line);
    if (!fresh) {
      report.AddMistake(line, key,
                        "the " + std::string(noun_) + " " + Quoted(name) + " is taken by " +
                            entry->second.first + " in line " +
                            std::to_string(entry->second.second) + "; each must be different");
    }
    return fresh;
  }

 private:
  std::string_view noun_;
  std::map<std::string, std::pair<std::string, std::size_t>> taken_;
};

// One run over one document. The root reader reports unknown tables, each Read* one section, and
// the checks that need several sections come last.
class Loader {
 public:
  // `keys` names the table in keys.h that the root of the document is.
  Loader(Report& report, const toml::table& document, std::string base_dir,
         std::string_view keys = "")
      : report_(report), root_(report, document, keys, ""), base_dir_(std::move(base_dir)) {}

  [[nodiscard]] Config Load() {
    ReadServer();
    ReadLimits();
    ReadDrain();
    ReadAdmin();
    ReadLog();
    ReadListeners();
    ReadPools();
    ReadRoutes();
    CheckPoolUse();
    CheckAdminAddress();
    return std::move(config_);
  }

  // Of a document that is a file of backends.
  [[nodiscard]] std::vector<Backend> LoadBackends() {
    Pool pool;
    pool.tls.emplace();  // the pool that reads the file may have it
    ReadBackends(root_, pool);
    return std::move(pool.backends);
  }

 private:
  void ReadServer();
  void ReadLimits();
  void ReadDrain();
  void ReadAdmin();
  void ReadAdminAddress(const TableReader& in, bool token_wanted);
  void ReadLog();
  void ReadListeners();
  // `certificates_path` names the table of a certificate in keys.h.
  void ReadTls(const TableReader& in, std::string_view certificates_path, ListenerTls& out);
  void ReadRedirect(const TableReader& listener, std::optional<Redirect>& out);
  void ReadPools();
  void ReadBackends(const TableReader& in, Pool& out);
  void ReadPoolTls(const TableReader& in, PoolTls& out);
  void ReadHealth(const TableReader& pool, Pool& out);
  void ReadOutlier(const TableReader& pool, Outlier& out);
  void ReadDiscovery(const TableReader& pool, Discovery& out);
  void ReadDnsDiscovery(const TableReader& in, Discovery& out);
  void ReadRoutes();
  // Returns whether both are as the file means them.
  bool ReadHostAndPath(const TableReader& in, Route& out);
  void ReadRoute(const TableReader& in, Route& out);
  void ReadHeartbeat(const TableReader& in, Heartbeat& out);
  void ReadHeaderRules(const TableReader& in, HeaderRules& out);
  void ReadHsts(const TableReader& route, Route& out);
  void ReadErrorPages(const TableReader& route, std::vector<ErrorPage>& out);
  void ReadAffinity(const TableReader& in, Route& out);
  void CheckCookiePrefix(const TableReader& route, std::string_view name);
  void ReadAuth(const TableReader& route, Route& out);
  // Names of fields, in lower case, each once. `parse` tells which there may be.
  void ReadFieldNames(const TableReader& in, std::string_view key,
                      Result<std::string> (*parse)(std::string_view),
                      std::vector<std::string>& out);
  // REQUIRES: the affinity of the route was read.
  void ReadLearn(const TableReader& route, Route& out);
  void ReadCloseCode(const TableReader& in, std::uint16_t& out);
  // Reads the path of a file and joins it with the folder of the configuration. `what` it is, for
  // messages. ReadFilePath also sees to it that the file is there.
  bool ReadPath(const TableReader& in, std::string_view key, std::string_view what,
                std::string& out);
  bool ReadFilePath(const TableReader& in, std::string_view key, std::string_view what,
                    std::string& out);
  // Reads the path of a socket to be, and joins it like the others.
  void ReadSocketPath(const TableReader& in, std::string_view key, std::string& out);
  void ReadConnectionAge(const TableReader& in, Millis& out);
  void CheckPoolUse();
  void CheckAdminAddress();

  struct Place {
    std::size_t line;
    std::string key;
  };

  Report& report_;
  TableReader root_;
  std::string base_dir_;
  Config config_;
  std::vector<Place> listener_places_;  // of the addresses, parallel to config_.listeners
  std::vector<Place> pool_places_;      // parallel to config_.pools
  std::vector<Place> route_pools_;      // of the key `pool`, parallel to config_.routes
};

}  // namespace sluice::config
