// The discovery of backends for all pools that have it: a watch of DNS or of a file for each, what
// each has found last, and how it goes. Says when a list has changed; applying it is the server's.
// Control thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/config/config.h"
#include "proxy/metrics/exporter.h"
#include "proxy/net/loop.h"

namespace sluice::server {

class Discoverer {
 public:
  // Called from the loop when the list of a pool has become another one; does not call Follow.
  using Changed =
      std::function<void(const std::string& pool, const std::vector<config::Backend>& backends)>;

  Discoverer(net::Loop& loop, Changed changed);
  ~Discoverer();

  Discoverer(const Discoverer&) = delete;
  Discoverer& operator=(const Discoverer&) = delete;

  // Discovers for the pools of `config` from now on. One whose name and setting are as before goes
  // on; a file that is new is read at once.
  void Follow(const config::Config& config);

  // Ends all of it; what was found stays known.
  void Stop() noexcept;

  // Gives each discovered pool of `config` what is known of it. One that nothing is known of, or
  // only by another setting, keeps what it has in `before`, until there is an answer.
  void FillIn(config::Config& config, const config::Config& before) const;

  // False while a pool waits for its first answer from DNS. A file has been read, for better or
  // worse.
  [[nodiscard]] bool settled() const noexcept;

  [[nodiscard]] std::vector<metrics::ProcessStatus::Discovery> statuses() const;

 private:
  class Source;

  [[nodiscard]] const Source* Find(std::string_view pool,
                                   const config::Discovery& setting) const noexcept;

  net::Loop& loop_;
  Changed changed_;
  std::vector<std::unique_ptr<Source>> sources_;
};

}  // namespace sluice::server
