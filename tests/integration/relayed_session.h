// One WebSocket session through the proxy with both ends in the test's hands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "tests/support/proxy_process.h"
#include "tests/support/raw_backend.h"
#include "tests/support/raw_client.h"

namespace sluice::test {

// Whether the binary under test has a sanitizer. It may have one when the test has not.
inline bool IsSanitized(const ProxyProcess& proxy) {
  std::ifstream file("/proc/" + std::to_string(proxy.pid()) + "/maps");
  const std::string maps{std::istreambuf_iterator<char>(file), {}};
  return maps.find("libasan") != std::string::npos || maps.find("libtsan") != std::string::npos;
}

// What the process may grow by while it holds a slow reader's bytes: its bounded buffers, and what
// an allocator keeps back. A sanitizer's keeps a lot.
inline std::size_t AllowedGrowth(const ProxyProcess& proxy) {
  return IsSanitized(proxy) ? 32U << 20U : 4U << 20U;
}

struct RelayedSession {
  RawClient client;
  Stream backend;
};

// Opens a session over the plain listener. `request` and `answer`: further field lines of the
// upgrade request and of the 101.
inline RelayedSession OpenSession(const ProxyProcess& proxy, RawBackend& backend,
                                  const ClientOptions& options = {}, std::string_view request = {},
                                  std::string_view answer = {}) {
  RelayedSession session{RawClient(proxy.port(), options), Stream()};
  session.client.Send(UpgradeRequest("/", request));
  session.backend = backend.AcceptWebSocket(answer);
  const HttpMessage head = session.client.ReadHead();
  if (head.status != 101) {
    throw Failure("upgrade answered: " + head.start_line);
  }
  return session;
}

// What the backend sends: unmasked.
inline std::string BackendFrame(std::uint8_t opcode, std::string_view payload, bool fin = true) {
  return BuildFrame(opcode, payload, {.fin = fin, .masked = false});
}

inline std::string ClientClose(std::uint16_t code, std::string_view reason = {}) {
  return BuildFrame(kClose, ClosePayload(code, reason));
}

inline std::string BackendClose(std::uint16_t code, std::string_view reason = {}) {
  return BackendFrame(kClose, ClosePayload(code, reason));
}

// Bytes that differ at every place within any 64 KiB, so that a gap or a swap shows.
inline std::string Pattern(std::size_t size, unsigned seed = 1) {
  std::string out(size, '\0');
  std::uint64_t state = seed * 0x9E3779B97F4A7C15U + 1;
  for (char& c : out) {
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    c = static_cast<char>(state & 0xFFU);
  }
  return out;
}

}  // namespace sluice::test
