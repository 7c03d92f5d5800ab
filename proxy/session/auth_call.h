// One question to an auth server: a GET without content, and its whole answer.
//
//   kConnecting --made--> kHead --head--> kContent --end--> done
//     ^                     |
//     +-- once, when a connection that was used before ends without a byte --+
//
// Owned by a session for as long as it waits for the answer, used in its worker's thread only.
// What is kept of the answer is bounded; nothing of it is believed before it is whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "proxy/base/bytes.h"
#include "proxy/http/chunked.h"
#include "proxy/http/parser.h"
#include "proxy/metrics/blocks.h"
#include "proxy/session/core.h"

namespace sluice::session {

class AuthCallSink {
 public:
  // The call is over, and is not called again. kAllowed: a 2xx; kDenied: any other final status;
  // of these there is a head() and content(). Else there is no answer.
  virtual void OnAuthCallDone(metrics::AuthResult result) noexcept = 0;

 protected:
  ~AuthCallSink() = default;
};

class AuthCall final : private net::ConnSink {
 public:
  // Asks the auth server of `route`, which is of core's view. Both are used until the report, the
  // sink as well.
  AuthCall(const Core& core, const Route& route, AuthCallSink& sink)
      : services_(core.services),
        core_(core),
        route_(route),
        sink_(sink),
        parser_(core.view->snapshot->head_limits) {}
  ~AuthCall() { Cancel(); }

  AuthCall(const AuthCall&) = delete;
  AuthCall& operator=(const AuthCall&) = delete;

  // Sends `request`, a whole head. May report at once, and does within `timeout`.
  void Start(std::string request, Millis timeout) noexcept;

  // Ends without a report. Idempotent.
  void Cancel() noexcept;

  // The views live as long as the call.
  [[nodiscard]] const http::ResponseHead& head() const noexcept { return parser_.head(); }
  [[nodiscard]] std::string_view content() const noexcept { return content_; }
  // Static: why there is no answer.
  [[nodiscard]] std::string_view failure() const noexcept { return failure_; }

 private:
  enum class Stage : std::uint8_t { kConnecting, kHead, kContent, kDone };

  // net::ConnSink
  void OnReadable(net::Conn& conn) noexcept override;
  void OnWritable(net::Conn& conn) noexcept override;
  void OnConnected(net::Conn& conn, int error) noexcept override;

  [[nodiscard]] bool TakeIdle() noexcept;
  void Connect() noexcept;
  void SendRequest() noexcept;
  void TakeHead(Bytes bytes) noexcept;
  void OnHead() noexcept;
  void TakeContent(Bytes bytes) noexcept;
  void OnEnd(bool broken) noexcept;
  void OnTimeout(short what) noexcept;
  void DropConn() noexcept;
  void OnWholeAnswer(bool reusable) noexcept;
  void Fail(metrics::AuthResult result, std::string_view why) noexcept;
  void FailAnswer(std::string_view why) noexcept { Fail(metrics::AuthResult::kBadAnswer, why); }

  Services& services_;
  const Core& core_;
  const Route& route_;
  AuthCallSink& sink_;
  std::unique_ptr<net::Conn> conn_;  // null: none now
  net::Timer timer_;
  std::string request_;
  std::string answer_;  // its head and what came with it; the parser's views are of it
  std::string content_;
  http::ResponseParser parser_;
  http::ChunkedDecoder chunks_;
  std::string_view failure_;
  unsigned interim_ = 0;  // interim answers so far
  Stage stage_ = Stage::kConnecting;
  bool reused_ = false;        // the connection has served another call before
  bool answered_any_ = false;  // a byte has come
};

}  // namespace sluice::session
