#include "proxy/session/proxy_header.h"

#include <algorithm>
#include <span>

#include "proxy/proxy_protocol/header_writer.h"
#include "proxy/tls/tls_transport.h"

namespace sluice::session {
namespace {

constexpr std::size_t kV4Size = 4;
constexpr std::size_t kV6Size = 16;

}  // namespace

net::Address AddressOf(const proxy_protocol::Endpoint& end) noexcept {
  return net::Address::FromBytes(std::span(end.ip).first(end.v6 ? kV6Size : kV4Size), end.port);
}

proxy_protocol::Endpoint EndpointOf(const net::Address& address) noexcept {
  const std::span<const std::uint8_t> ip = address.ip_bytes();
  proxy_protocol::Endpoint end;
  std::copy(ip.begin(), ip.end(), end.ip.begin());
  end.v6 = ip.size() == kV6Size;
  end.port = address.port();
  return end;
}

std::string HeaderForBackend(const Core& core, proxy_protocol::Version version) {
  if (core.peer_unknown) {
    return proxy_protocol::UnknownHeader(version);
  }
  const Introduction* introduction = core.introduction();
  const net::Address destination = introduction != nullptr
                                       ? introduction->destination
                                       : net::Address::OfSocket(core.client.fd());
  const auto* tls = dynamic_cast<const tls::TlsTransport*>(core.client.transport());
  return proxy_protocol::ClientHeader(version, EndpointOf(core.peer), EndpointOf(destination),
                                      tls != nullptr ? tls->server_name() : std::string_view());
}

}  // namespace sluice::session
