// The listening sockets of the process and what is served on them, as the control thread knows it.
// The workers accept; this keeps a descriptor of every socket beside theirs, so that a successor
// can be handed all of them, and tells what a new configuration changes.
//
// A listener is the same before and after a reload when its address is; one on port 0 when its name
// is. It keeps its sockets then, and with them what waits in their queues.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "proxy/base/result.h"
#include "proxy/base/unique_fd.h"
#include "proxy/config/config.h"
#include "proxy/metrics/exporter.h"
#include "proxy/net/address.h"
#include "proxy/server/worker.h"
#include "proxy/server/worker_libraries.h"
#include "proxy/tls/server_context.h"

namespace sluice::server {

// A listener that is bound, with the port it got.
struct Bound {
  std::string name;
  net::Address address;
  bool tls = false;
};

// A listening socket that somebody else has bound: a predecessor, or a service manager.
struct PassedSocket {
  std::string name;        // of the listener it was bound for; may be empty
  std::string configured;  // the address of that listener as its configuration says it
  net::Address address;    // its own
  UniqueFd fd;
  bool by_name = false;  // it is for the listener of that name, whatever its address
};

class ListenerSet {
 public:
  // All of them outlive the set.
  ListenerSet(WorkerLibraries& libraries, metrics::Exporter& exporter, const tls::TicketKeys& keys);

  // What a configuration needs that is not there yet. Everything that can fail has been done.
  struct Change {
    std::vector<std::vector<WorkerListener>> by_worker;  // added, or with another view
    std::vector<std::size_t> closed;                     // tags of those that are gone

   private:
    friend class ListenerSet;
    struct Entry {
      std::size_t tag = 0;
      config::Listener config;
      net::Address address;
      std::string fingerprint;        // of its TLS settings; empty: plain
      std::vector<UniqueFd> sockets;  // one for each that is bound, shared with the workers
      std::vector<tls::CertificateInfo> certificates;
    };
    std::vector<Entry> entries_;
  };

  // Binds, or takes from `passed`, what `config` lists and is not there, and loads certificates
  // whose files have changed: all or nothing. The error is one sentence.
  [[nodiscard]] Result<Change> Prepare(const config::Config& config,
                                       std::vector<PassedSocket> passed = {});

  // Makes a prepared change the present. The caller tells the workers.
  void Commit(Change& change);

  // Gives up the descriptors kept here: the workers' are the last ones from now on.
  void LetGo() noexcept;

  [[nodiscard]] std::vector<Bound> bound() const;
  [[nodiscard]] std::vector<metrics::ProcessStatus::Certificate> certificates() const;

  // One more descriptor of every socket.
  [[nodiscard]] Result<std::vector<PassedSocket>> Duplicate() const;

 private:
  using Entry = Change::Entry;

  [[nodiscard]] static std::string KeyOf(const config::Listener& listener);
  [[nodiscard]] static bool IsFor(const PassedSocket& passed, const config::Listener& listener);
  [[nodiscard]] bool IsOurs(std::uint16_t port, const std::vector<PassedSocket>& passed) const;
  [[nodiscard]] Result<void> Bind(Entry& entry,
                                  std::vector<std::vector<UniqueFd>>& by_worker) const;
  [[nodiscard]] Result<void> Adopt(Entry& entry, std::vector<UniqueFd> passed,
                                   std::vector<std::vector<UniqueFd>>& by_worker) const;
  [[nodiscard]] Result<LocalPtr<const session::ListenerView>> MakeView(std::size_t worker,
                                                                       Entry& entry);

  WorkerLibraries& libraries_;
  std::size_t workers_;
  metrics::Exporter& exporter_;
  const tls::TicketKeys& keys_;
  std::vector<Entry> entries_;  // in the order of the configuration
  std::size_t next_tag_ = 0;
};

// The TLS settings of a listener, or of the admin interface, as proxy/tls takes them.
[[nodiscard]] tls::ServerOptions TlsOptions(const config::Listener& listener);
[[nodiscard]] tls::ServerOptions TlsOptions(const config::Admin& admin);

}  // namespace sluice::server
