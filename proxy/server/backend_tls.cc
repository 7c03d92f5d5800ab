#include "proxy/server/backend_tls.h"

#include <algorithm>

namespace sluice::server {
namespace {

std::vector<std::unique_ptr<tls::Destination>> DestinationsOf(const config::Pool& pool) {
  std::vector<std::unique_ptr<tls::Destination>> all;
  for (const config::Backend& backend : pool.backends) {
    all.push_back(std::make_unique<tls::Destination>(ServerNameOf(pool, backend)));
  }
  return all;
}

}  // namespace

const std::string& ListedHostOf(const config::Backend& backend) noexcept {
  return backend.listed_host.empty() ? backend.host : backend.listed_host;
}

std::string ServerNameOf(const config::Pool& pool, const config::Backend& backend) {
  if (!backend.server_name.empty()) {
    return backend.server_name;
  }
  if (!pool.tls->server_name.empty()) {
    return pool.tls->server_name;
  }
  if (pool.discover && !pool.discover->dns.empty()) {
    // Its host is an address by now. The name of what SRV records told is that of their target.
    return pool.discover->type == config::DnsType::kSrv
               ? backend.name.substr(0, backend.name.rfind(':'))
               : pool.discover->dns;
  }
  return ListedHostOf(backend);
}

tls::ClientContext::Options TlsOptions(const config::PoolTls& tls) {
  return {tls.ca,
          {tls.certificate.chain, tls.certificate.key},
          tls.verify,
          tls.min_version == config::TlsVersion::k13};
}

Result<BackendTls::Change> BackendTls::Prepare(const config::Config& config) {
  Change change;
  for (const config::Pool& pool : config.pools) {
    Entry entry;
    entry.pool = pool;
    if (!pool.tls) {
      change.entries_.push_back(std::move(entry));
      continue;
    }
    const tls::ClientContext::Options options = TlsOptions(*pool.tls);
    auto fingerprint = tls::Fingerprint(options);
    if (!fingerprint) {
      return tl::unexpected(Error{"pool." + pool.name + ": " + fingerprint.error().message, 0});
    }
    entry.fingerprint = std::move(*fingerprint);
    const auto old = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& one) {
      return one.pool.name == pool.name && one.fingerprint == entry.fingerprint;
    });
    if (old != entries_.end()) {
      entry.by_worker = old->by_worker;
      entry.own.context = old->own.context;
    } else {
      for (std::size_t worker = 0; worker <= libraries_.workers(); ++worker) {
        const bool own = worker == libraries_.workers();
        if (own && !own_library_) {
          auto made = tls::MakeLibrary();
          if (!made) {
            return tl::unexpected(made.error());
          }
          own_library_ = std::move(*made);
        }
        auto library = own ? Result<tls::Library>(own_library_) : libraries_.Of(worker);
        if (!library) {
          return tl::unexpected(library.error());
        }
        auto context = tls::ClientContext::Make(options, std::move(*library));
        if (!context) {
          return tl::unexpected(Error{"pool." + pool.name + ": " + context.error().message, 0});
        }
        if (own) {
          entry.own.context = std::move(*context);
        } else {
          entry.by_worker.push_back(std::move(*context));
        }
      }
    }
    entry.own.destinations = DestinationsOf(pool);
    change.entries_.push_back(std::move(entry));
  }
  return change;
}

void BackendTls::FollowBackends(const config::Config& config) {
  for (std::size_t i = 0; i < entries_.size() && i < config.pools.size(); ++i) {
    Entry& entry = entries_[i];
    const config::Pool before = std::exchange(entry.pool, config.pools[i]);
    if (!entry.pool.tls || entry.pool.backends == before.backends) {
      continue;
    }
    // A check that is under way holds on to the destination of its backend.
    auto known = std::exchange(entry.own.destinations, DestinationsOf(entry.pool));
    for (std::size_t now = 0; now < entry.pool.backends.size(); ++now) {
      for (std::size_t then = 0; then < before.backends.size(); ++then) {
        if (known[then] && before.backends[then].name == entry.pool.backends[now].name &&
            known[then]->server_name() == entry.own.destinations[now]->server_name()) {
          entry.own.destinations[now] = std::move(known[then]);
          break;
        }
      }
    }
  }
}

std::vector<session::PoolTls> BackendTls::Of(std::size_t worker) const {
  std::vector<session::PoolTls> all;
  for (const Entry& entry : entries_) {
    session::PoolTls& one = all.emplace_back();
    if (entry.pool.tls) {
      one.context = entry.by_worker[worker];
      one.destinations = DestinationsOf(entry.pool);
    }
  }
  return all;
}

std::unique_ptr<net::Transport> BackendTls::Connect(std::string_view pool, std::string_view backend,
                                                    int fd) {
  for (const Entry& entry : entries_) {
    if (entry.pool.name != pool || !entry.own.is_tls()) {
      continue;
    }
    const auto& backends = entry.pool.backends;
    const auto found =
        std::find_if(backends.begin(), backends.end(),
                     [backend](const config::Backend& one) { return one.name == backend; });
    if (found == backends.end()) {
      break;
    }
    if (!buffers_) {
      buffers_ = std::make_unique<tls::SharedBuffers>();
    }
    const auto index = static_cast<std::size_t>(found - backends.begin());
    return tls::TlsTransport::Connect(*entry.own.context, *entry.own.destinations[index], fd,
                                      *buffers_);
  }
  return nullptr;
}

std::string_view BackendTls::failure() const noexcept {
  return buffers_ ? std::string_view(buffers_->failure) : std::string_view();
}

}  // namespace sluice::server
