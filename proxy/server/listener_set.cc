#include "proxy/server/listener_set.h"

#include <algorithm>
#include <utility>

#include "proxy/config/values.h"
#include "proxy/log/log.h"
#include "proxy/net/socket.h"

namespace sluice::server {
namespace {

tls::ServerOptions TlsOptions(const config::ListenerTls& tls, const std::string& realm) {
  tls::ServerOptions options;
  for (const config::Certificate& pair : tls.certificates) {
    options.certificates.push_back({pair.chain, pair.key});
  }
  options.tls13_only = tls.min_version == config::TlsVersion::k13;
  options.client_ca = tls.client_ca;
  options.realm = realm;
  return options;
}

}  // namespace

tls::ServerOptions TlsOptions(const config::Listener& listener) {
  return TlsOptions(listener.tls, listener.name);
}

tls::ServerOptions TlsOptions(const config::Admin& admin) {
  return TlsOptions(admin.tls, "admin interface");  // no listener has a space in its name
}

ListenerSet::ListenerSet(WorkerLibraries& libraries, metrics::Exporter& exporter,
                         const tls::TicketKeys& keys)
    : libraries_(libraries), workers_(libraries.workers()), exporter_(exporter), keys_(keys) {}

std::string ListenerSet::KeyOf(const config::Listener& listener) {
  return listener.port == 0 ? "name " + listener.name
                            : listener.host + " " + std::to_string(listener.port);
}

bool ListenerSet::IsFor(const PassedSocket& passed, const config::Listener& listener) {
  if (listener.port == 0 || (passed.by_name && passed.name == listener.name)) {
    return passed.name == listener.name;
  }
  const std::string address = config::HostPort{listener.host, listener.port, true}.Text();
  return passed.configured == address || passed.address.Text() == address;
}

// Whether a socket on that port may be one of this process's, or of the one that passed them: a
// listener that moves from one address to another keeps its port, and is not in its own way.
bool ListenerSet::IsOurs(std::uint16_t port, const std::vector<PassedSocket>& passed) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [port](const Entry& one) { return one.address.port() == port; }) ||
         std::any_of(passed.begin(), passed.end(),
                     [port](const PassedSocket& one) { return one.address.port() == port; });
}

Result<ListenerSet::Change> ListenerSet::Prepare(const config::Config& config,
                                                 std::vector<PassedSocket> passed) {
  Change change;
  change.by_worker.resize(workers_);
  std::vector<bool> kept(entries_.size(), false);
  std::size_t next_tag = next_tag_;
  for (const config::Listener& listener : config.listeners) {
    Entry entry;
    entry.config = listener;
    if (listener.is_tls()) {
      auto fingerprint = tls::Fingerprint(TlsOptions(listener));
      if (!fingerprint) {
        return tl::unexpected(fingerprint.error());
      }
      entry.fingerprint = std::move(*fingerprint);
    }
    const auto old = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& one) {
      return KeyOf(one.config) == KeyOf(listener);
    });
    std::vector<std::vector<UniqueFd>> sockets(workers_);
    if (old != entries_.end()) {
      kept[static_cast<std::size_t>(old - entries_.begin())] = true;
      entry.tag = old->tag;
      entry.address = old->address;
      for (const UniqueFd& fd : old->sockets) {
        auto copy = net::Duplicate(fd.get());
        if (!copy) {
          return tl::unexpected(copy.error());
        }
        entry.sockets.push_back(std::move(*copy));
      }
      if (old->config.name == listener.name &&
          old->config.proxy_protocol == listener.proxy_protocol &&
          old->config.redirect == listener.redirect && old->fingerprint == entry.fingerprint) {
        entry.certificates = old->certificates;
        change.entries_.push_back(std::move(entry));
        continue;  // the workers have it as it is
      }
    } else {
      entry.tag = next_tag++;
      auto address = net::Address::FromNumeric(listener.host, listener.port);
      if (!address) {
        return tl::unexpected(address.error());
      }
      entry.address = *address;
      std::vector<UniqueFd> mine;
      for (PassedSocket& one : passed) {
        if (one.fd.valid() && IsFor(one, listener)) {
          entry.address = one.address;
          mine.push_back(std::move(one.fd));
        }
      }
      Result<void> made;
      if (!mine.empty()) {
        made = Adopt(entry, std::move(mine), sockets);
      } else {
        if (!IsOurs(listener.port, passed)) {
          made = net::CheckFree(entry.address);
        }
        if (made) {
          made = Bind(entry, sockets);
        }
      }
      if (!made) {
        return tl::unexpected(made.error());
      }
    }
    for (std::size_t worker = 0; worker < workers_; ++worker) {
      auto view = MakeView(worker, entry);
      if (!view) {
        return tl::unexpected(view.error());
      }
      change.by_worker[worker].push_back({entry.tag, std::move(*view), std::move(sockets[worker])});
    }
    change.entries_.push_back(std::move(entry));
  }
  for (const PassedSocket& one : passed) {
    if (one.fd.valid()) {
      spdlog::warn("a socket that was passed in is for no listener name={} address={}", one.name,
                   one.address.Text());
    }
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!kept[i]) {
      change.closed.push_back(entries_[i].tag);
    }
  }
  next_tag_ = next_tag;
  return change;
}

void ListenerSet::Commit(Change& change) {
  for (const Entry& entry : change.entries_) {
    const bool is_new = std::none_of(entries_.begin(), entries_.end(),
                                     [&](const Entry& old) { return old.tag == entry.tag; });
    if (is_new) {
      spdlog::info("listening name={} address={} tls={}", entry.config.name, entry.address.Text(),
                   entry.config.is_tls());
    }
  }
  for (const Entry& old : entries_) {
    if (std::find(change.closed.begin(), change.closed.end(), old.tag) != change.closed.end()) {
      spdlog::info("no longer listening name={} address={}", old.config.name, old.address.Text());
    }
  }
  entries_ = std::move(change.entries_);
}

Result<void> ListenerSet::Bind(Entry& entry, std::vector<std::vector<UniqueFd>>& by_worker) const {
  for (std::size_t worker = 0; worker < workers_; ++worker) {
    auto fd = net::Listen(entry.address);
    if (!fd) {
      return tl::unexpected(fd.error());
    }
    auto copy = net::Duplicate(fd->get());
    if (!copy) {
      return tl::unexpected(copy.error());
    }
    // Port 0: the first worker's socket gets a port, the others join it.
    entry.address.set_port(net::Address::OfSocket(fd->get()).port());
    entry.sockets.push_back(std::move(*copy));
    by_worker[worker].push_back(std::move(*fd));
  }
  return {};
}

// Every socket needs somebody who accepts from it, or what the kernel queues there waits for ever;
// and every worker needs a socket. Where there are fewer than workers, some share one.
Result<void> ListenerSet::Adopt(Entry& entry, std::vector<UniqueFd> passed,
                                std::vector<std::vector<UniqueFd>>& by_worker) const {
  for (std::size_t i = 0; i < std::max(passed.size(), workers_); ++i) {
    auto copy = net::Duplicate(passed[i % passed.size()].get());
    if (!copy) {
      return tl::unexpected(copy.error());
    }
    by_worker[i % workers_].push_back(std::move(*copy));
  }
  entry.sockets = std::move(passed);
  return {};
}

Result<LocalPtr<const session::ListenerView>> ListenerSet::MakeView(std::size_t worker,
                                                                    Entry& entry) {
  auto view = std::make_unique<session::ListenerView>();
  view->name = entry.config.name;
  view->block = &exporter_.Listener(worker, entry.config.name, entry.config.is_tls(),
                                    entry.config.proxy_protocol);
  view->proxy_protocol = entry.config.proxy_protocol;
  view->redirect = entry.config.redirect;
  if (entry.config.is_tls()) {
    auto library = libraries_.Of(worker);
    if (!library) {
      return tl::unexpected(library.error());
    }
    auto tls = tls::ServerContext::Make(TlsOptions(entry.config), keys_, std::move(*library));
    if (!tls) {
      return tl::unexpected(tls.error());
    }
    entry.certificates = (*tls)->certificates();
    view->tls = std::move(*tls);
  }
  return LocalPtr<const session::ListenerView>(view.release());
}

void ListenerSet::LetGo() noexcept {
  for (Entry& entry : entries_) {
    entry.sockets.clear();
  }
}

std::vector<Bound> ListenerSet::bound() const {
  std::vector<Bound> all;
  for (const Entry& entry : entries_) {
    all.push_back({entry.config.name, entry.address, entry.config.is_tls()});
  }
  return all;
}

std::vector<metrics::ProcessStatus::Certificate> ListenerSet::certificates() const {
  std::vector<metrics::ProcessStatus::Certificate> all;
  for (const Entry& entry : entries_) {
    for (const tls::CertificateInfo& info : entry.certificates) {
      all.push_back({entry.config.name, info.name, static_cast<double>(info.not_after)});
    }
  }
  return all;
}

Result<std::vector<PassedSocket>> ListenerSet::Duplicate() const {
  std::vector<PassedSocket> all;
  for (const Entry& entry : entries_) {
    for (const UniqueFd& fd : entry.sockets) {
      auto copy = net::Duplicate(fd.get());
      if (!copy) {
        return tl::unexpected(copy.error());
      }
      all.push_back({entry.config.name,
                     config::HostPort{entry.config.host, entry.config.port, true}.Text(),
                     entry.address, std::move(*copy)});
    }
  }
  return all;
}

}  // namespace sluice::server
