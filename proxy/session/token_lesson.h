// What one answer of a backend teaches: the token in it belongs to that backend. Looks at the
// content on its way to the client, holds nothing of it back, and has learned the token before the
// bytes that end it are written.
//
// Owned by Exchange for as long as such an answer lasts.
#pragma once

#include <memory>

#include "proxy/base/bytes.h"
#include "proxy/base/clock.h"
#include "proxy/http/head.h"
#include "proxy/metrics/blocks.h"
#include "proxy/routing/json_member.h"
#include "proxy/session/snapshot.h"

namespace sluice::session {

// True for a plain request whose answer may hand out a token.
[[nodiscard]] bool MayTeach(const http::RequestHead& head, const Route& route) noexcept;

class TokenLesson {
 public:
  // Of an answer to a request that may teach, given by `teacher`. Null where it teaches nothing.
  // `route` and `block` outlive the lesson.
  [[nodiscard]] static std::unique_ptr<TokenLesson> Begin(
      const http::ResponseHead& head, const Route& route,
      std::shared_ptr<balance::BackendState> teacher, metrics::RouteBlock& block);

  TokenLesson(const Route& route, std::shared_ptr<balance::BackendState> teacher,
              metrics::RouteBlock& block) noexcept
      : route_(route),
        teacher_(std::move(teacher)),
        block_(block),
        member_(route.config.learn->json) {}

  // The next bytes of the content, before they are written.
  void Take(Bytes content, Instant now);

  // All of the content was taken.
  void End() noexcept;

 private:
  const Route& route_;
  std::shared_ptr<balance::BackendState> teacher_;
  metrics::RouteBlock& block_;
  routing::JsonMember member_;
  bool over_ = false;  // nothing more is to be learned
};

}  // namespace sluice::session
