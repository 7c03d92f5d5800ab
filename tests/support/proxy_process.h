// The real binary as a child process, with a configuration of the test's own. Ends with the test.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "proxy/base/unique_fd.h"

#include "tests/support/deadline.h"
#include "tests/support/http_message.h"
#include "tests/support/temp_dir.h"

namespace sluice::test {

// What most tests need of a configuration: one plain listener "plain", one route, one pool "app".
// Every text is TOML that goes into the named table.
struct Config {
  std::vector<std::uint16_t> backends;  // named b0, b1, ...
  unsigned workers = 0;                 // 0: TestWorkers()
  std::string server = {};
  std::string limits = {};
  std::string listener = {};
  std::string route = {};
  std::string pool = {};
  std::string drain = "window = \"0s\"";
  std::string log = {};
  std::string more = {};  // whole further tables, at the end

  [[nodiscard]] std::string Text() const;
};

// Workers that tests run the proxy with: SLUICE_TEST_WORKERS, or 2.
[[nodiscard]] unsigned TestWorkers();

// The binary under test: SLUICE_BIN, or `sluice` beside the test's own executable.
[[nodiscard]] std::string ProxyBinary();

// A process that another one has taken over from, while it drains. Ends with the test.
class Predecessor {
 public:
  Predecessor(pid_t pid, UniqueFd pidfd);
  // As ~ProxyProcess does, if it still runs.
  ~Predecessor();

  Predecessor(Predecessor&&) noexcept = default;
  Predecessor& operator=(Predecessor&&) = delete;
  Predecessor(const Predecessor&) = delete;
  Predecessor& operator=(const Predecessor&) = delete;

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  void Signal(int number) const;
  // As ProxyProcess::Wait; what it wrote is in ProxyProcess::err of its successor.
  [[nodiscard]] std::optional<int> Wait(Deadline deadline = Deadline());
  [[nodiscard]] bool running() { return !Wait(Deadline(Millis(0))); }

 private:
  pid_t pid_;
  UniqueFd pidfd_;
  std::optional<int> status_;
};

class ProxyProcess {
 public:
  // Starts `sluice run -c FILE` and waits until it serves; throws, with what it said on standard
  // error, when it ends instead.
  explicit ProxyProcess(const std::string& config_text);
  explicit ProxyProcess(const Config& config) : ProxyProcess(config.Text()) {}

  // Any command line; waits for nothing.
  explicit ProxyProcess(const std::vector<std::string>& args);

  // If the process still runs: ends it with two SIGTERM, or SIGKILL when that takes too long. Fails
  // the test if the process crashed, ended with another status than 0, or a sanitizer reported.
  ~ProxyProcess();

  ProxyProcess(const ProxyProcess&) = delete;
  ProxyProcess& operator=(const ProxyProcess&) = delete;

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] std::uint16_t port(const std::string& listener = "plain") const;
  [[nodiscard]] std::uint16_t admin_port() const noexcept { return admin_port_; }
  [[nodiscard]] const std::string& config_path() const noexcept { return config_path_; }
  [[nodiscard]] const TempDir& dir() const noexcept { return dir_; }

  void Signal(int number) const;

  // Replaces the configuration file; nobody is told.
  void Configure(const std::string& config_text) const;
  void Configure(const Config& config) const { Configure(config.Text()); }

  // SIGUSR2, and waits until the successor serves: from then on this object is about that process.
  // Returns the one before. What both write is in out() and err().
  [[nodiscard]] Predecessor TakeOver();

  // Halts all threads once they have nothing to do; what peers send until Continue() is there, all
  // at once, when they go on.
  void Stop() const;
  void Continue() const { Signal(SIGCONT); }

  // The wait status (see waitpid(2)) as an exit status, or 128 + the signal; nothing when the
  // process still ran at the deadline. Once an exit was taken by the test, ~ProxyProcess does not
  // judge its status.
  [[nodiscard]] std::optional<int> Wait(Deadline deadline = Deadline());
  [[nodiscard]] bool running();

  // Everything written so far; all of it once Wait has returned a status.
  [[nodiscard]] std::string out() const;
  [[nodiscard]] std::string err() const;

  // The access log so far, one JSON object a line.
  [[nodiscard]] std::vector<nlohmann::json> AccessLog() const;
  // The first `count` or more lines; throws when they do not come.
  [[nodiscard]] std::vector<nlohmann::json> AwaitAccessLog(std::size_t count,
                                                           Deadline deadline = Deadline());
  [[nodiscard]] bool AwaitErr(std::string_view text, Deadline deadline = Deadline());

  // Body of GET `path` on the admin listener; `status` gets its status.
  [[nodiscard]] std::string Admin(const std::string& path, int* status = nullptr) const;

  // Any request on the admin listener. `more`: further whole field lines; `content`, if there is
  // any, is JSON.
  [[nodiscard]] HttpMessage Ask(std::string_view method, const std::string& path,
                                std::string_view more = {}, std::string_view content = {}) const;
  // The same, its answer as JSON; throws when it has another status than `status`.
  [[nodiscard]] nlohmann::json AskJson(std::string_view method, const std::string& path,
                                       int status = 200) const;

  // `sluice_x_total{route="a",code="2xx"}`: the sum over all series of that name that carry the
  // labels given, in any order; NaN when there is none.
  [[nodiscard]] double Metric(std::string_view series) const;
  // Scrapes until the metric has this value (or at least it); throws when it does not come.
  void AwaitMetric(std::string_view series, double value, Deadline deadline = Deadline()) const;
  void AwaitMetricAtLeast(std::string_view series, double value,
                          Deadline deadline = Deadline()) const;

  [[nodiscard]] std::size_t OpenFds() const;
  [[nodiscard]] std::size_t ResidentBytes() const;

 private:
  void Spawn(const std::vector<std::string>& args, const std::string& ready_file);
  [[nodiscard]] std::string ready_file() const { return dir_.path() + "/ready.json"; }
  // Until the ready file is there, of another process than `before`; takes what it tells. Stops
  // waiting when `watched`, a pidfd, ends.
  void AwaitReady(pid_t before, int watched);
  // Until the state of each thread is one of these letters of proc(5).
  void AwaitThreads(std::string_view states) const;
  void Collect(int out, int err);
  void CheckReports();
  template <class Condition>
  bool Await(Deadline deadline, Condition&& condition) const;

  TempDir dir_;
  std::string config_path_;
  pid_t pid_ = -1;
  UniqueFd pidfd_;
  std::optional<int> status_;
  std::uint16_t admin_port_ = 0;
  std::map<std::string, std::uint16_t> ports_;

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string out_;
  std::string err_;
  bool all_read_ = false;
  std::thread reader_;
};

// Sums the series of a metrics page; see ProxyProcess::Metric.
[[nodiscard]] double MetricOf(std::string_view page, std::string_view series);

}  // namespace sluice::test
