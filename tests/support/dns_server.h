// A real DNS server, dnsmasq, on a loopback port of its own: for what discovery asks. It is
// authoritative for "test" and knows nothing else. Ends with the test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "proxy/base/unique_fd.h"

#include "tests/support/deadline.h"
#include "tests/support/temp_dir.h"

namespace sluice::test {

class DnsServer {
 public:
  struct Host {
    std::string name;
    std::string address;
  };
  struct Service {
    std::string name;  // "_ws._tcp.chat.test"
    std::string target;
    std::uint16_t port = 0;
    unsigned priority = 0;
    unsigned weight = 0;
  };

  // Runs once this has returned.
  explicit DnsServer(const std::vector<Host>& hosts = {},
                     const std::vector<Service>& services = {});
  ~DnsServer();

  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  // "127.0.0.1:PORT"
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Replaces all hosts; answers by them once this has returned, or once it is started again.
  void SetHosts(const std::vector<Host>& hosts);

  // Takes no notice of anything until Continue(); what was asked meanwhile is answered then.
  void Stop() const;
  void Continue() const;

  // It is gone until it is started again, on the same port.
  void Kill();
  void Start(const std::vector<Service>& services = {});

 private:
  [[nodiscard]] bool TryStart(const std::vector<Service>& services);
  void Signal(int number) const;
  void WriteHosts(const std::vector<Host>& hosts) const;
  [[nodiscard]] bool AwaitLog(std::string_view text);

  TempDir dir_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;  // -1: it does not run
  UniqueFd log_;
  std::string logged_;  // since the last AwaitLog
};

}  // namespace sluice::test
