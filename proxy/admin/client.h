// The other end of the admin interface: one blocking request and its answer, for the command line.
#pragma once

#include <optional>
#include <string>

#include "proxy/base/clock.h"
#include "proxy/base/result.h"
#include "proxy/net/address.h"
#include "proxy/tls/blocking_client.h"

namespace sluice::admin {

// Where an admin interface is, and what it wants.
struct AdminEndpoint {
  net::Address address;
  std::string host;                       // the Host field, and what errors call it
  std::string token;                      // empty: none
  std::optional<tls::ClientOptions> tls;  // nothing: plain
};

struct ClientRequest {
  std::string method = "GET";
  std::string target = "/";  // path and query, encoded
  std::string body = {};     // a JSON object, or empty
};

struct ClientAnswer {
  int status = 0;
  std::string content_type;
  std::string body;
};

// The largest answer that is taken.
inline constexpr std::size_t kMostAnswer = 8 << 20;

// Blocks for at most `patience` in all. Any status is an answer; the error is one sentence.
[[nodiscard]] Result<ClientAnswer> Ask(const AdminEndpoint& endpoint, const ClientRequest& request,
                                       Millis patience);

}  // namespace sluice::admin
