// One request to the admin interface and its answer, as the listener hands them to the API.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "proxy/admin/operations.h"

namespace sluice::admin {

struct AdminRequest {
  std::string method = "GET";     // as it was sent, but GET for HEAD: only the listener tells them
                                  // apart
  std::string path = "/";         // without the query; nothing is decoded
  std::string query = {};         // without '?'; nothing is decoded
  std::string content_type = {};  // as it was sent; empty: none
  std::string body = {};          // at most AdminServer::kMostContent bytes
  std::string peer = {};          // "127.0.0.1:51234"
};

inline constexpr std::string_view kPlainText = "text/plain; charset=utf-8";
inline constexpr std::string_view kJson = "application/json";
inline constexpr std::string_view kProblemJson = "application/problem+json";  // RFC 9457

struct AdminReply {
  int status = 200;
  std::string_view content_type = kPlainText;  // static
  std::string body = {};
  std::string extra_fields = {};  // whole lines, each ending with CRLF, or empty
};

// Gives the answer: now or later, in the loop's thread. Only the first call counts, and a client
// that has left meanwhile makes it do nothing.
using AdminResponder = std::function<void(AdminReply)>;

// Called in the loop's thread; `request` is gone when it returns.
using AdminHandler = std::function<void(const AdminRequest& request, AdminResponder answer)>;

// The problem document. Never a body that some other program could take for a success.
[[nodiscard]] AdminReply ProblemReply(const Problem& problem);

// `text` as a value in a log line: quoted when it has anything but visible ASCII, or a '"' or '='.
[[nodiscard]] std::string LogValue(std::string_view text);

}  // namespace sluice::admin
